"""Text with pictures in it: where they stand, and how it is put to models."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dsrl.part import Many, record
from dsrl.sample import Image

if TYPE_CHECKING:
    from dsrl.images.store import ImageStore

IMAGE = "<image>"
"""Stands in a text for the next of its pictures. Of a text without pictures it is a part like any other."""
REFERENCE = "image:"
"""`image:<digest>`: a picture in a message that isn't sent yet, and in the identity of a call."""

PICTURE_CHARACTERS = 4000
"""For forecasts: of a picture of a million pixels, which models read as about a thousand tokens."""


@record
class Illustrated:
    """A prompt with pictures: as many as its text has placeholders."""

    text: str
    images: Many[Image]


Prompt = str | Illustrated
"""What a model is asked."""


def text_of(prompt: Prompt) -> str:
    """Its words, placeholders among them."""
    return prompt if isinstance(prompt, str) else prompt.text


def images_of(prompt: Prompt) -> tuple[Image, ...]:
    """Its pictures, in order."""
    return () if isinstance(prompt, str) else prompt.images


def illustrated(text: str, images: Sequence[Image]) -> Prompt:
    """Plain text where there are no pictures."""
    return Illustrated(text=text, images=tuple(images)) if images else text


def marked(text: str, count: int) -> str | None:
    """The text with a placeholder for each of `count` pictures: in front, if it has none; None where it has another
    number of them."""
    found = text.count(IMAGE)
    if found == count or count == 0:
        return text
    return f"{IMAGE}\n" * count + text if found == 0 else None


def pieces(text: str, images: Sequence[Image]) -> Iterator[str | Image]:
    """Words and pictures in the order of reading. The text has as many placeholders as there are pictures."""
    first, *rest = text.split(IMAGE) if images else [text]
    if first:
        yield first
    for image, words in zip(images, rest, strict=True):
        yield image
        if words:
            yield words


def content(prompt: Prompt) -> Any:
    """The content of a chat turn: the text, or a list of parts with references to pictures."""
    if isinstance(prompt, str):
        return prompt
    return [
        {"type": "text", "text": piece}
        if isinstance(piece, str)
        else {"type": "image_url", "image_url": {"url": f"{REFERENCE}{piece.digest}"}}
        for piece in pieces(prompt.text, prompt.images)
    ]


def shown_first(text: str, images: Sequence[Image]) -> Any:
    """The content of a chat turn that shows pictures first, and then says something about them. The text may talk of
    placeholders without meaning them."""
    if not images:
        return text
    references = [{"type": "image_url", "image_url": {"url": f"{REFERENCE}{image.digest}"}} for image in images]
    return [*references, {"type": "text", "text": text}]


def length(said: Any) -> int:
    """Characters of the content of a turn; a picture counts as many as have about its tokens."""
    if isinstance(said, list):
        return sum(len(part["text"]) if part["type"] == "text" else PICTURE_CHARACTERS for part in said)
    return len(str(said))


def with_pictures(body: dict[str, Any], store: "ImageStore | None") -> dict[str, Any]:
    """The body of a request with pictures in the place of references, as data URLs: made only when it is sent, because
    a thousand waiting requests would hold a thousand pictures. The same object where there are none."""
    if all(isinstance(turn.get("content"), str) for turn in body["messages"]):
        return body
    return {**body, "messages": [{**turn, "content": _drawn(turn.get("content"), store)} for turn in body["messages"]]}


def _drawn(parts: Any, store: "ImageStore | None") -> Any:
    return [_with_url(part, store) for part in parts] if isinstance(parts, list) else parts


def _with_url(part: dict[str, Any], store: "ImageStore | None") -> dict[str, Any]:
    url = part.get("image_url", {}).get("url", "")
    if not url.startswith(REFERENCE):
        return part
    assert store is not None, "a client that is asked with pictures knows where they are"
    return {**part, "image_url": {"url": store.url(url.removeprefix(REFERENCE))}}
