"""Prompts with images for Hugging Face models, shared by pass rates, training and evaluation.

Imports transformers: for child processes only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import AutoProcessor

from dsrl.core.errors import UserError
from dsrl.data.model import Model
from dsrl.data.sample import IMAGE


@dataclass(frozen=True)
class Shown:
    """A prompt with its images or their paths, as many as it has placeholders."""

    text: str
    images: Sequence[str | Image.Image]


def load_processor(model: Model) -> Any:
    """The Hugging Face processor. Raises `UserError` for a model that does not accept images, and if a package that
    its processor needs is missing."""
    try:
        processor = AutoProcessor.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"model {model.name}: its image processor can't be loaded",
            got=str(error).strip().splitlines()[0],
            next_step="usually torchvision is missing: install the version that matches your torch",
        ) from error
    if getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"model {model.name} does not accept images",
            got=f"{type(processor).__name__} in {model.path}",
            next_step="use a vision-language model, or a task without images",
        )
    return processor


def encode(processor: Any, prompts: Sequence[Shown], prompt_format: str) -> dict[str, Any]:
    """The tensors of one batch: `input_ids` and `attention_mask` of shape (batch, seq), padded on the left, and the
    images as the model takes them. An image takes as many tokens as the processor makes of it."""
    texts = [apply_template(processor, prompt, prompt_format) for prompt in prompts]
    images = [[opened(image) for image in prompt.images] for prompt in prompts]
    special = {} if prompt_format == "raw" else {"add_special_tokens": False}
    inputs = processor(text=texts, images=images, padding=True, padding_side="left", return_tensors="pt", **special)
    return dict(inputs)


def lengths(inputs: dict[str, Any]) -> list[int]:
    """Tokens of each prompt of a batch, image tokens included."""
    return [int(length) for length in inputs["attention_mask"].sum(dim=1)]


def prompt_ids(inputs: dict[str, Any]) -> list[list[int]]:
    """Token ids of each prompt of a batch, without padding."""
    rows = zip(inputs["input_ids"].tolist(), lengths(inputs), strict=True)
    return [ids[len(ids) - length :] for ids, length in rows]


def size(processor: Any, prompt: Shown, prompt_format: str) -> int:
    """Tokens of one prompt, image tokens included."""
    return lengths(encode(processor, [prompt], prompt_format))[0]


def turns(text: str, count: int) -> list[dict[str, Any]]:
    """One user turn with `count` images at their placeholders."""
    first, *rest = text.split(IMAGE) if count else [text]
    parts: list[dict[str, str]] = [{"type": "text", "text": first}] if first else []
    for words in rest:
        parts.append({"type": "image"})
        parts += [{"type": "text", "text": words}] if words else []
    return [{"role": "user", "content": parts}]


def apply_template(processor: Any, prompt: Shown, prompt_format: str) -> str:
    """The prompt's text with the processor's image tokens: plain, or one user turn of the chat template."""
    if prompt_format == "raw":
        return prompt.text.replace(IMAGE, processor.image_token) if prompt.images else prompt.text
    if not (processor.chat_template or processor.tokenizer.chat_template):
        raise UserError(
            "the model's processor has no chat template", next_step="give model.prompt_format=raw, or an instruct model"
        )
    messages = turns(prompt.text, len(prompt.images))
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def opened(image: str | Image.Image) -> Image.Image:
    """The image of a path in RGB; an open image is returned unchanged."""
    if isinstance(image, Image.Image):
        return image
    with Image.open(image) as file:
        return file.convert("RGB")
