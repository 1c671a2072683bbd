"""Images on the GPU with the architectures of LLaVA and, if torchvision is installed, Qwen2.5-VL."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsrl.data.images import Pixels, make_prompt
from dsrl.data.model import Model, Sampling
from dsrl.models.rollout import TransformersRollout
from dsrl.pipeline.context import Context
from tests.e2e.tiny import surroundings
from tests.e2e.tiny_vision import TEMPLATE, tiny_vision
from tests.gpu.conftest import Say

SPECIAL = ("<end>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
SIDE = 28
"""Width and height, in pixels, of the patch that one token stands for."""


def qwen_vision(folder: Path) -> Model:
    """A small Qwen2.5-VL with one token per character."""
    pytest.importorskip("torchvision")
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    words = [*SPECIAL, *map(chr, range(32, 127)), "\n"]
    number = {word: place for place, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(number, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", pad_token="<end>", additional_special_tokens=list(SPECIAL[1:])
    )
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
        image_token_id=number["<|image_pad|>"],
        video_token_id=number["<|video_pad|>"],
        vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"],
    )
    torch.manual_seed(0)
    weights = Qwen2_5_VLForConditionalGeneration(config)
    weights.generation_config.eos_token_id = 0
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=SIDE**2, max_pixels=SIDE**2 * 64),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=template,
    )
    weights.save_pretrained(folder)
    processor.save_pretrained(folder)
    return Model(name="tiny-qwen-vision", path=str(folder), prompt_format="chat", max_length=512, dtype="float32")


def asked(where: Context) -> list[Any]:
    images = []
    for colour, size in (("red", (84, 56)), ("green", (56, 56)), ("blue", (112, 56))):
        path = where.run_dir / f"{colour}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        images.append(where.images.put(path.read_bytes(), Pixels(min_pixels=1)))
    shown = [make_prompt("<image>\nWhich colour?", [image]) for image in images]
    return [*shown, "No picture?", make_prompt("<image> or <image>?", images[:2])]


@pytest.mark.parametrize("make", [tiny_vision, qwen_vision], ids=["llava", "qwen2.5-vl"])
def test_images_of_several_sizes_in_one_batch(make: Any, tmp_path: Path, say: Say) -> None:
    model, where = make(tmp_path / "model"), surroundings(tmp_path)
    prompts = asked(where)
    sampling = Sampling(temperature=1.0, max_tokens=16)
    together = TransformersRollout(batch_size=64).generate(model, prompts, sampling, 4, where)
    assert all(reply.error is None for own in together for reply in own)
    tokens = [own[0].usage.input_tokens for own in together]
    say("pictures", model=model.name, prompt_tokens=tokens, replies=sum(map(len, together)))
    where.close()
