"""Long documents as pieces that end where a sentence does. A piece is found in its document at its offset."""

import re
from collections.abc import Iterator

SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f][\u300d\u300f\u201d]*|\n")
ABBREVIATION = re.compile(
    r"\b(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St|vs|etc|cf|al|Fig|Figs|No|Vol|pp?|eds?|e\.g|i\.e|approx|ca|Inc|Ltd)\.$"
)
WHITE = re.compile(r"\s*")
LOOK_BACK = 12
"""Characters before a full stop in which an abbreviation is sought."""


def pieces(text: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """Offsets and texts of consecutive pieces of at most `max_chars` characters, without space at either end."""
    start = _skip(text, 0)
    while start < len(text):
        end = start + cut(text[start : start + max_chars + 1], max_chars)
        yield start, text[start:end].rstrip()
        start = _skip(text, end)


def cut(text: str, max_chars: int) -> int:
    """Where to end a text: after the last sentence that fits whole, else the last word, else in the middle of one."""
    if len(text) <= max_chars:
        return len(text)
    ends = [end for match in SENTENCE_END.finditer(text) if (end := match.end()) <= max_chars and _ends(text, match)]
    return ends[-1] if ends else max(text.rfind(" ", 0, max_chars + 1), 0) or max_chars


def _ends(text: str, match: re.Match[str]) -> bool:
    """Whether a full stop ends a sentence, and not an abbreviation or an initial."""
    stop = match.start() + 1
    return text[match.start()] != "." or not ABBREVIATION.search(text[max(0, stop - LOOK_BACK) : stop])


def _skip(text: str, start: int) -> int:
    found = WHITE.match(text, start)
    return found.end() if found else start
