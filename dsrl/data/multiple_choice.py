"""Multiple choice: where the options of a row stand, in which order they are shown, and which one is right."""

import random
import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from dsrl.core.component import record
from dsrl.core.digest import digest, normalised

MARK = re.compile(r"\s*\(?([A-Z])[).:]\s*")


@record
class Options:
    """The options of one question, in the order in which they are shown."""

    texts: tuple[str, ...]
    right: str | None
    """Letter of the right one; None where the gold column names none of them."""

    @property
    def right_text(self) -> str | None:
        """Text of the right one."""
        return None if self.right is None else self.texts[ascii_uppercase.index(self.right)]

    def render(self) -> str:
        """The one way in which options are written: `A. ...`, one to a line; nothing where they are mere letters."""
        if self.texts == tuple(ascii_uppercase[: len(self.texts)]):
            return ""
        return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False))


def shown(named: Mapping[str, str], right: str | None, question: str, seed: int | None) -> Options:
    """The options in their order, or in one that depends on (seed, question, options) alone. `right` is a name."""
    names = list(named)
    if seed is not None:
        random.Random(digest([seed, question, sorted(named.values())])).shuffle(names)
    letter = ascii_uppercase[names.index(right)] if right is not None else None
    return Options(texts=tuple(" ".join(named[name].split()) for name in names), right=letter)


def named_options(values: Any) -> dict[str, str]:
    """Name -> text of a column that holds a list or an object of options, or a text that names them; empty for anything
    else."""
    if isinstance(values, str):
        return _in_text(values)
    if isinstance(values, Mapping):
        return {str(name): str(text) for name, text in values.items() if text is not None}
    if isinstance(values, (list, tuple)):
        return dict(zip(ascii_uppercase, map(str, values), strict=False))
    return {}


def _in_text(text: str) -> dict[str, str]:
    """`A. 4;B. 5; C. 6`: up to the first mark that isn't the next letter's."""
    pieces: list[str] = []
    for piece in re.split(r"[;\n]", text):
        mark = MARK.match(piece)
        if mark and mark[1] == ascii_uppercase[len(pieces) : len(pieces) + 1]:
            pieces.append(piece[mark.end() :].strip())
        elif pieces:  # a text with a semicolon in it
            pieces[-1] += f";{piece.rstrip()}"
    return dict(zip(ascii_uppercase, [piece.rstrip("; ") for piece in pieces], strict=False))


def right_name(named: Mapping[str, str], gold: Any, index_from: int | None) -> str | None:
    """Which option a gold column means: by number, by name or letter, or by its text."""
    names = list(named)
    if index_from is not None:
        place = _whole(gold)
        return names[place - index_from] if place is not None and 0 <= place - index_from < len(names) else None
    text = str(gold).strip()
    for name in names:
        if name.lower() == text.lower():
            return name
    if len(text) == 1 and text.upper() in ascii_uppercase[: len(names)]:
        return names[ascii_uppercase.index(text.upper())]
    same = [name for name, option in named.items() if normalised(option) == normalised(text)]
    return same[0] if len(same) == 1 else None


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
