"""Models of realistic size with random weights; half of their tokens are an answer."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from dsrl.data.model import Model
from dsrl.data.sample import Rate, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.state import PipelineState

TINY = bool(os.environ.get("DSRL_GPU_TINY"))
TASK = Task(name="t", instruction="count", answer=Number(marker="#"))
VOCABULARY = 300 if TINY else 151936
SHARPENED = 6.0
"""Factor on the output weights: with random weights alone, all tokens would be about equally likely."""
QWEN: dict[str, dict[str, Any]] = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
"""Sizes of Qwen2.5, with Llama's architecture: for a saved Qwen2, transformers would load its own tokenizer."""
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def config(size: str) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        **(SMALL if TINY else QWEN[size]),
        num_key_value_heads=4 if size == "7B" else 2,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        tie_word_embeddings=size != "7B",
        eos_token_id=1,
        bos_token_id=None,
    )


def tokenizer() -> Any:
    """One word per token; every second word contains an answer, 1 or 2."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [
        "[UNK]",
        "[END]",
        *(f"w{number}" + f" # {number // 2 % 2 + 1}" * (number % 2) for number in range(2, VOCABULARY)),
    ]
    level = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=level, unk_token="[UNK]", eos_token="[END]")


def make(size: str, folder: Path, dtype: str = "bfloat16") -> Model:
    """Create a Hugging Face folder, on the GPU if there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        weights = AutoModelForCausalLM.from_config(config(size), dtype=getattr(torch, dtype))
    with torch.no_grad():
        weights.get_output_embeddings().weight.mul_(SHARPENED)
    weights.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    del weights
    free()
    return Model(name=f"qwen-{size}", path=str(folder), prompt_format="raw", max_length=2048, dtype=dtype)


@contextmanager
def model(size: str, folder: Path, dtype: str = "bfloat16") -> Iterator[Model]:
    """A model for one test, deleted afterwards because it is large."""
    try:
        yield make(size, folder, dtype)
    finally:
        rmtree(folder, ignore_errors=True)


def free() -> None:
    """Free this process's GPU memory."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def prompts(count: int, words: int) -> list[str]:
    """Different questions of `words` tokens."""
    return [
        " ".join(f"w{2 * ((7 * number + 3 * place) % (VOCABULARY // 2 - 1)) + 2}" for place in range(words))
        for number in range(count)
    ]


def state(base: Model, count: int = 24, words: int = 32) -> PipelineState:
    """Samples with the answers 1 and 2; half of them are selected."""
    rate = Rate(
        model="m", num_rollouts=4, num_valid=4, num_correct=2, num_error=0, num_truncated=0, temperature=0.7, grader="g"
    )
    samples = tuple(
        new_sample("t", text, "12"[number % 2], "initial").replace(score=rate)
        for number, text in enumerate(prompts(count, words))
    )
    ids = tuple(sample.id for sample in samples)
    return PipelineState(
        task=TASK, base=base, samples=samples, selected=ids[: count // 2], control=ids[4 : count // 2 + 4]
    )
