"""From the hits of several keywords to one list of passages."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence

from dsrl.digest import digest, text_digest
from dsrl.retrieve.index import Hit
from dsrl.sample import Passage

SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)\]]*(?=\s)|\n")
WORD = re.compile(r"\w+")


def interleave(hits: Mapping[str, Sequence[Hit]], max_chars: int, seed: int) -> Iterator[Passage]:
    """Every keyword's best passage, then every keyword's second best and so on, without those that came before.

    Within one rank the keywords take turns in a seeded order. A longer list begins with the shorter one, so that more
    samples of the same task keep the passages of the first ones.
    """
    seen: set[str] = set()
    for rank in range(max(map(len, hits.values()), default=0)):
        turn = [keyword for keyword, found in hits.items() if rank < len(found)]
        random.Random(digest([seed, "passages", rank])).shuffle(turn)
        for keyword in turn:
            passage = make_passage(hits[keyword][rank], keyword, rank, max_chars)
            marks = {passage.source, text_digest(passage.text)}
            if passage.text and not marks & seen:
                yield passage
            seen |= marks


def make_passage(hit: Hit, keyword: str, rank: int, max_chars: int) -> Passage:
    """The document, or of a longer one the piece that shares most words with the keyword."""
    wanted = set(WORD.findall(keyword.lower()))
    choices = list(pieces(hit.text, max_chars)) or [(0, "")]
    offset, text = max(choices, key=lambda piece: len(wanted.intersection(WORD.findall(piece[1].lower()))))
    identifier = f"{hit.source}@{offset}" if offset else hit.source
    return Passage(
        id=identifier, text=text, source=hit.source, offset=offset, keyword=keyword, rank=rank, score=hit.score
    )


def pieces(text: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """Offsets and texts of consecutive pieces of at most `max_chars` characters that end where a sentence ends."""
    start = 0
    while rest := text[start:].strip():
        start = text.index(rest[0], start)
        end = min(cut(rest, max_chars), len(rest))
        yield start, rest[:end].rstrip()
        start += end


def cut(text: str, max_chars: int) -> int:
    """Where to end a text: after the last sentence that fits whole, else the last word, else in the middle of one."""
    if len(text) <= max_chars:
        return len(text)
    ends = [match.end() for match in SENTENCE_END.finditer(text[: max_chars + 1]) if match.end() <= max_chars]
    return ends[-1] if ends else max(text.rfind(" ", 0, max_chars + 1), 0) or max_chars
