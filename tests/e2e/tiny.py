"""A model with a few thousand weights and five words, so that random replies are often correct."""

import io
from pathlib import Path
from typing import Any

from dsrl.data.model import Model
from dsrl.data.sample import Rate, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store

WORDS = ("[UNK]", "[END]", "#", "1", "2")
TASK = Task(name="t", instruction="count", answer=Number(marker="#"))


def tiny_model(folder: Path, seed: int = 0) -> Model:
    """Save a model with random weights. A reply such as `2 # 1` has the answer 1."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[END]")
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
        initializer_range=0.5,  # far from uniform
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Model(name="tiny", path=str(folder), prompt_format="raw", max_length=48, dtype="float32")


def tiny_study(model: Model, count: int = 24) -> PipelineState:
    """`count` samples with the answers 1 and 2, half of them selected."""
    counts: dict[str, Any] = {"num_rollouts": 4, "num_valid": 4, "num_correct": 2, "num_error": 0, "num_truncated": 0}
    rate = Rate(model="m", temperature=0.7, grader="g", **counts)
    samples = tuple(
        new_sample("t", " ".join("12"[number >> bit & 1] for bit in range(5)), "12"[number % 2], "initial").replace(
            score=rate, solution=f"1 # {'12'[number % 2]}"
        )
        for number in range(count)
    )
    ids = tuple(sample.id for sample in samples)
    return PipelineState(
        task=TASK, base=model, samples=samples, selected=ids[: count // 2], control=ids[4 : count // 2 + 4]
    )


def surroundings(folder: Path) -> Context:
    """A stage's context. The same folder gives the same work folder again."""
    context = Context(
        run_dir=folder / "run",
        store=Store(folder / "store"),
        reply_cache=ReplyCache(folder / "calls"),
        progress=Progress(io.StringIO()),
        stage="stage",
        scratch=folder / "scratch",
        work=folder / "work",
    )
    for place in (context.run_dir, context.scratch, context.work):
        place.mkdir(parents=True, exist_ok=True)
    return context
