"""Text with pictures in it: where they stand, and how it is put to models."""

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from dsrl.core.component import Many, record
from dsrl.data.sample import Image

if TYPE_CHECKING:
    from dsrl.data.images.store import ImageStore

IMAGE = "<image>"
"""Stands in a text for the next of its pictures. Of a text without pictures it is a part like any other."""
NUMBERED = re.compile(r"<image\s?\d{1,2}>")
"""As some data name their pictures."""
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


def unnumbered(text: str, count: int) -> str:
    """`<image1>`, `<image 2>` as `<image>`; where they are more than the pictures, as of one that holds several, the
    first stand for these, and the others go."""
    found = len(NUMBERED.findall(text))
    if not found or IMAGE in text:
        return text
    placed = NUMBERED.sub(IMAGE, text, count=count)
    return NUMBERED.sub("", placed) if found > count else placed


def blind(text: str) -> str:
    """A question's words alone."""
    return text.replace(f"{IMAGE}\n", "").replace(IMAGE, "").strip()


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


def spoken(said: Any) -> str:
    """The content of a turn as one text for people; its pictures are numbered."""
    if not isinstance(said, list):
        return "" if said is None else str(said)
    numbers = count(1)
    return "".join(part["text"] if "text" in part else f"[image {next(numbers)}]\n" for part in said)


def numbered(text: str, pictures: int) -> str:
    """A question for people, with `[image 1]`, `[image 2]` and so on in the place of its placeholders."""
    for number in range(pictures):
        text = text.replace(IMAGE, f"[image {number + 1}]", 1)
    return text


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
