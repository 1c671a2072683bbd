"""Pictures put to Hugging Face models, in one way by pass rates, training and evaluation.

Imports transformers: for child processes only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import AutoProcessor

from dsrl.core.errors import UserError
from dsrl.data.images.prompt import IMAGE
from dsrl.data.model import Model


@dataclass(frozen=True)
class Shown:
    """A prompt with its pictures or their files, as many as it has placeholders."""

    text: str
    images: Sequence[str | Image.Image]


def load_processor(model: Model) -> Any:
    """What turns words and pictures into a model's tensors. Raises `UserError` for a model that reads no pictures, and
    where a package is missing that its pictures need."""
    try:
        processor = AutoProcessor.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"model {model.name}: the processor of its pictures can't be loaded",
            got=str(error).strip().splitlines()[0],
            next_step="mostly torchvision is missing: install the one that goes with your torch",
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"model {model.name} reads no pictures",
            got=f"{type(processor).__name__} in {model.path}",
            next_step="take a vision-language model, or a task without pictures",
        )
    return processor


def encode(processor: Any, prompts: Sequence[Shown], prompt_format: str) -> dict[str, Any]:
    """The tensors of one batch, padded on the left. A picture takes as many tokens as the model reads it by."""
    texts = [_worded(processor, prompt, prompt_format) for prompt in prompts]
    pictures = [[opened(picture) for picture in prompt.images] for prompt in prompts]
    special = {} if prompt_format == "raw" else {"add_special_tokens": False}
    found = processor(text=texts, images=pictures, padding=True, padding_side="left", return_tensors="pt", **special)
    return dict(found)


def lengths(inputs: dict[str, Any]) -> list[int]:
    """Tokens of each prompt of a batch, those of its pictures among them."""
    return [int(length) for length in inputs["attention_mask"].sum(dim=1)]


def prompt_ids(inputs: dict[str, Any]) -> list[list[int]]:
    """The tokens of each prompt of a batch, without the padding."""
    rows = zip(inputs["input_ids"].tolist(), lengths(inputs), strict=True)
    return [ids[len(ids) - length :] for ids, length in rows]


def size(processor: Any, prompt: Shown, prompt_format: str) -> int:
    """Tokens of one prompt."""
    return lengths(encode(processor, [prompt], prompt_format))[0]


def turns(text: str, count: int) -> list[dict[str, Any]]:
    """One user turn, its `count` pictures where their placeholders are."""
    first, *rest = text.split(IMAGE) if count else [text]
    parts: list[dict[str, str]] = [{"type": "text", "text": first}] if first else []
    for words in rest:
        parts.append({"type": "image"})
        parts += [{"type": "text", "text": words}] if words else []
    return [{"role": "user", "content": parts}]


def _worded(processor: Any, prompt: Shown, prompt_format: str) -> str:
    if prompt_format == "raw":
        return prompt.text.replace(IMAGE, processor.image_token) if prompt.images else prompt.text
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise UserError(
            "the model's processor has no chat template", next_step="give model.prompt_format=raw, or an instruct model"
        )
    asked = turns(prompt.text, len(prompt.images))
    return str(processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))


def opened(picture: str | Image.Image) -> Image.Image:
    """A file's picture as models see it; one that is open already stays as it is."""
    if isinstance(picture, Image.Image):
        return picture
    with Image.open(picture) as found:
        return found.convert("RGB")
