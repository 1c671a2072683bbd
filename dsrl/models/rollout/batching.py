"""How rollouts are cut into batches."""

from collections.abc import Sequence
from typing import NamedTuple

from dsrl.data.images import Prompt, prompt_images, prompt_text


class Row(NamedTuple):
    """One reply to one prompt, both by number."""

    prompt: int
    reply: int


def batches(prompts: Sequence[Prompt], count: int, size: int) -> list[list[Row]]:
    """Every prompt `count` times, prompts of like length together, those with pictures after the others.

    First replies come first, then all second ones, and so on (several at a time where there are fewer prompts than
    `size`): which replies share a batch, and with it their rounding, is the same after an interruption and
    when more replies are asked for later.
    """
    by_length = sorted(range(len(prompts)), key=lambda number: _order(prompts[number]))
    at_once = max(1, size // max(1, len(prompts)))
    rows = [
        Row(number, reply)
        for first in range(0, count, at_once)
        for number in by_length
        for reply in range(first, min(first + at_once, count))
    ]
    whole = at_once * len(prompts)
    blocks = [rows[start : start + whole] for start in range(0, len(rows), whole or 1)]
    return [block[start : start + size] for block in blocks for start in range(0, len(block), size)]


def _order(prompt: Prompt) -> tuple[bool, int, str, list[str]]:
    images = [image.digest for image in prompt_images(prompt)]
    return bool(images), len(prompt_text(prompt)), prompt_text(prompt), images
