"""Cuts long documents into pieces that end at the end of a sentence."""

import re
from collections.abc import Iterator

SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f][\u300d\u300f\u201d]*|\n")
ABBREVIATION = re.compile(
    r"\b(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|vs|etc|cf|al|Fig|Figs|No|Vol|pp?|eds?|e\.g|i\.e|approx|ca|Inc|Ltd)\.$"
)
NOT_SPACE = re.compile(r"\S")
LOOK_BACK = 12
"""Characters before a full stop in which an abbreviation is looked for."""


def split_text(text: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """Yield (offset, piece) for consecutive pieces of 1 to `max_chars` characters, stripped of surrounding space."""
    start = 0
    while match := NOT_SPACE.search(text, start):
        start = match.start()
        end = start + find_cut(text[start : start + max_chars + 1], max_chars)
        yield start, text[start:end].rstrip()
        start = end


def find_cut(text: str, max_chars: int) -> int:
    """End of the last sentence within `max_chars` characters; failing that, of the last word; else `max_chars`."""
    if len(text) <= max_chars:
        return len(text)
    ends = [
        match.end() for match in SENTENCE_END.finditer(text) if match.end() <= max_chars and _ends_sentence(text, match)
    ]
    return ends[-1] if ends else max(text.rfind(" ", 0, max_chars + 1), 0) or max_chars


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    stop = match.start() + 1
    return text[match.start()] != "." or not ABBREVIATION.search(text[max(0, stop - LOOK_BACK) : stop])
