"""Text with image placeholders, and how it is turned into chat messages."""

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from dsrl.core.component import Many, record
from dsrl.data.sample import IMAGE, Image

if TYPE_CHECKING:
    from dsrl.data.images.store import ImageStore

NUMBERED_PLACEHOLDER = re.compile(r"<(?:image|img)[\s_-]?(\d{1,2})>", re.IGNORECASE)
OTHER_PLACEHOLDER = re.compile(r"<imagehere>|<\|image(?:_pad)?\|>|<image>", re.IGNORECASE)
"""Placeholders of other tools and models."""
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


def resolve_placeholders(text: str, num_images: int) -> tuple[str, tuple[int, ...]] | None:
    """Write all placeholders as `<image>`. Returns the text and the images in the order in which it shows them, as
    positions from 0; None if the placeholders do not fit the number of images.

    A number names its image, however often and in whatever order: `<image2> or <image1>` shows the second image first.
    Numbers count from 1, or from 0 if a 0 occurs. Where the only image contains several numbered parts, the first
    placeholder stands for it and the others are removed. A text without placeholders shows the images first.
    """
    everything = tuple(range(num_images))
    text = OTHER_PLACEHOLDER.sub(IMAGE, text)
    numbers = [int(number) for number in NUMBERED_PLACEHOLDER.findall(text)]
    if not numbers or IMAGE in text:
        placed = None if num_images == 0 and IMAGE in text else with_placeholders(text, num_images)
        return (placed, everything) if placed is not None else None
    if num_images == 1 and len(numbers) > 1:
        first = NUMBERED_PLACEHOLDER.sub(IMAGE, text, count=1)
        return NUMBERED_PLACEHOLDER.sub("", first), everything
    order = tuple(number - (0 not in numbers) for number in numbers)
    return (NUMBERED_PLACEHOLDER.sub(IMAGE, text), order) if set(order) == set(everything) else None


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
