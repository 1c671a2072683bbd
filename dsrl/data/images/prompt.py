"""Text with image placeholders, and how it is turned into chat messages."""

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from dsrl.core.component import Many, record
from dsrl.data.sample import Image

if TYPE_CHECKING:
    from dsrl.data.images.store import ImageStore

IMAGE = "<image>"
"""Placeholder for the next image of a text. In a text without images it is ordinary text."""
NUMBERED_PLACEHOLDER = re.compile(r"<image\s?\d{1,2}>")
REFERENCE = "image:"
"""`image:<digest>` stands for an image in a message that has not been sent yet, and in a call's key."""
CHARACTERS_PER_IMAGE = 4000
"""For forecasts: models read an image of a million pixels as about a thousand tokens."""


@record
class ImagePrompt:
    """A prompt with images, one for each placeholder in its text."""

    text: str
    images: Many[Image]


Prompt = str | ImagePrompt


def prompt_text(prompt: Prompt) -> str:
    """Its text, placeholders included."""
    return prompt if isinstance(prompt, str) else prompt.text


def prompt_images(prompt: Prompt) -> tuple[Image, ...]:
    return () if isinstance(prompt, str) else prompt.images


def make_prompt(text: str, images: Sequence[Image]) -> Prompt:
    """A plain string if there are no images."""
    return ImagePrompt(text=text, images=tuple(images)) if images else text


def with_placeholders(text: str, num_images: int) -> str | None:
    """The text with one placeholder per image, put in front if it has none; None if it has another number of them."""
    existing = text.count(IMAGE)
    if existing == num_images or num_images == 0:
        return text
    return f"{IMAGE}\n" * num_images + text if existing == 0 else None


def resolve_numbered(text: str, num_images: int) -> str:
    """Replace `<image1>`, `<image 2>` by `<image>`. If there are more of them than images, as where one image contains
    several, the rest are removed."""
    numbered = len(NUMBERED_PLACEHOLDER.findall(text))
    if not numbered or IMAGE in text:
        return text
    replaced = NUMBERED_PLACEHOLDER.sub(IMAGE, text, count=num_images)
    return NUMBERED_PLACEHOLDER.sub("", replaced) if numbered > num_images else replaced


def strip_placeholders(text: str) -> str:
    return text.replace(f"{IMAGE}\n", "").replace(IMAGE, "").strip()


def interleave(text: str, images: Sequence[Image]) -> Iterator[str | Image]:
    """Text segments and images in reading order. The text must have one placeholder per image."""
    first, *rest = text.split(IMAGE) if images else [text]
    if first:
        yield first
    for image, segment in zip(images, rest, strict=True):
        yield image
        if segment:
            yield segment


def chat_content(prompt: Prompt) -> Any:
    """The content of a chat turn: the text, or a list of parts with references to images."""
    if isinstance(prompt, str):
        return prompt
    return [
        {"type": "text", "text": part} if isinstance(part, str) else _image_part(part)
        for part in interleave(prompt.text, prompt.images)
    ]


def images_first(text: str, images: Sequence[Image]) -> Any:
    """The content of a chat turn that shows images and then the text, in which placeholders are ordinary text."""
    return [*map(_image_part, images), {"type": "text", "text": text}] if images else text


def _image_part(image: Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"{REFERENCE}{image.digest}"}}


def content_text(content: Any) -> str:
    """The content of a chat turn as one text for display, with numbered images."""
    if not isinstance(content, list):
        return "" if content is None else str(content)
    numbers = count(1)
    return "".join(part["text"] if "text" in part else f"[image {next(numbers)}]\n" for part in content)


def label_images(text: str, num_images: int) -> str:
    """A question for display, with `[image 1]`, `[image 2]` and so on instead of placeholders."""
    for number in range(num_images):
        text = text.replace(IMAGE, f"[image {number + 1}]", 1)
    return text


def content_length(content: Any) -> int:
    """Characters of the content of a turn; an image counts as `CHARACTERS_PER_IMAGE`."""
    if isinstance(content, list):
        return sum(len(part["text"]) if part["type"] == "text" else CHARACTERS_PER_IMAGE for part in content)
    return len(str(content))


def embed_images(body: dict[str, Any], store: "ImageStore | None") -> dict[str, Any]:
    """Replace image references in a request body by data URLs; the same object if there are none.

    This happens only when a request is sent, so that a thousand waiting requests don't hold a thousand images.
    """
    if all(isinstance(turn.get("content"), str) for turn in body["messages"]):
        return body

    def embed(part: dict[str, Any]) -> dict[str, Any]:
        url = part.get("image_url", {}).get("url", "")
        if not url.startswith(REFERENCE):
            return part
        assert store is not None, "a client that gets image prompts has an image store"
        return {**part, "image_url": {"url": store.data_url(url.removeprefix(REFERENCE))}}

    turns = []
    for turn in body["messages"]:
        content = turn.get("content")
        turns.append({**turn, "content": [embed(part) for part in content] if isinstance(content, list) else content})
    return {**body, "messages": turns}
