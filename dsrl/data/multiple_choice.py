"""Multiple choice: parse a row's options, order them, and find the right one."""

import random
import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from dsrl.core.component import record
from dsrl.core.digest import digest, normalised

LABEL = re.compile(r"\s*\(?([A-Z])[).:]\s*")
TEXT_KEYS = ("text", "texts", "option", "content", "value")
LABEL_KEYS = ("label", "labels", "key", "letter", "name", "id")


@record
class ChoiceOptions:
    """The options of one question, in display order."""

    texts: tuple[str, ...]
    right: str | None
    """Letter of the right option; None if the gold cell names none of them."""

    @property
    def right_text(self) -> str | None:
        return None if self.right is None else self.texts[ascii_uppercase.index(self.right)]

    def render(self) -> str:
        """One `A. ...` line per option; empty if the options are bare letters."""
        if self.texts == tuple(ascii_uppercase[: len(self.texts)]):
            return ""
        return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False))


def arrange_options(named: Mapping[str, str], right: str | None, question: str, seed: int | None) -> ChoiceOptions:
    """Put options into display order: as given, or shuffled by (seed, question, options) alone.

    `named` maps names to texts; `right` is the name of the right one.
    """
    names = list(named)
    if seed is not None:
        random.Random(digest([seed, question, sorted(named.values())])).shuffle(names)
    letter = ascii_uppercase[names.index(right)] if right is not None else None
    return ChoiceOptions(texts=tuple(" ".join(named[name].split()) for name in names), right=letter)


def parse_options(cell: Any) -> dict[str, str]:
    """Name -> text of the options in a list, an object, or a text such as `A. 4; B. 5`; empty for anything else."""
    if isinstance(cell, str):
        return _parse_options_text(cell)
    named = _parse_labelled_options(cell)
    if named is None and isinstance(cell, Mapping):
        named = {str(name): text for name, text in cell.items() if text is not None}
    elif named is None and isinstance(cell, (list, tuple)):
        named = dict(zip(ascii_uppercase, cell, strict=False))
    if not named or not all(isinstance(text, (str, int, float)) for text in named.values()):
        return {}
    return _strip_own_labels({name: str(text) for name, text in named.items()})


def has_unknown_layout(cell: Any) -> bool:
    """Whether a cell holds options in a layout that `parse_options` doesn't read."""
    return bool(cell) and not isinstance(cell, str) and not parse_options(cell)


def _parse_labelled_options(cell: Any) -> dict[str, Any] | None:
    """Label -> text of options as official releases have them: ARC's `{"text": [...], "label": [...]}`, CommonsenseQA's
    `[{"label": "A", "text": "bank"}, ...]`. None for any other layout."""
    if isinstance(cell, Mapping):
        labels, texts = _first(cell, LABEL_KEYS), _first(cell, TEXT_KEYS)
        if not (isinstance(labels, (list, tuple)) and isinstance(texts, (list, tuple)) and len(labels) == len(texts)):
            return None
    elif isinstance(cell, (list, tuple)) and cell and all(isinstance(option, Mapping) for option in cell):
        labels, texts = ([_first(option, keys) for option in cell] for keys in (LABEL_KEYS, TEXT_KEYS))
    else:
        return None
    named = {str(label): text for label, text in zip(labels, texts, strict=True) if None not in (label, text)}
    return named if len(named) == len(labels) else None


def _first(option: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((option[key] for key in keys if key in option), None)


def _strip_own_labels(named: dict[str, str]) -> dict[str, str]:
    """Texts without labels of their own, if every option has the next letter: AQuA's `A)5`, `B)10`, ..."""
    labels = [LABEL.match(text) for text in named.values()]
    if len(named) < 2 or [label[1] if label else "" for label in labels] != list(ascii_uppercase[: len(named)]):
        return named
    return {name: text[label.end() :] for (name, text), label in zip(named.items(), labels, strict=True) if label}


def _parse_options_text(text: str) -> dict[str, str]:
    """`A. 4;B. 5; C. 6`: a piece whose label is not the next letter belongs to the option before it."""
    pieces: list[str] = []
    for piece in re.split(r"[;\n]", text):
        label = LABEL.match(piece)
        if label and label[1] == ascii_uppercase[len(pieces) : len(pieces) + 1]:
            pieces.append(piece[label.end() :].strip())
        elif pieces:
            pieces[-1] += f";{piece.rstrip()}"
    return dict(zip(ascii_uppercase, [piece.rstrip("; ") for piece in pieces], strict=False))


def find_gold_option(named: Mapping[str, str], gold: Any, index_from: int | None) -> str | None:
    """The name of the option that a gold cell means: by number, by name or letter, or by its text."""
    names = list(named)
    if index_from is not None:
        try:
            position = int(gold) - index_from
        except (TypeError, ValueError):
            return None
        return names[position] if 0 <= position < len(names) else None
    text = str(gold).strip()
    for name in names:
        if name.lower() == text.lower():
            return name
    if len(text) == 1 and text.upper() in ascii_uppercase[: len(names)]:
        return names[ascii_uppercase.index(text.upper())]
    same = [name for name, option in named.items() if normalised(option) == normalised(text)]
    return same[0] if len(same) == 1 else None
