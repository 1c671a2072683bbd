"""From the hits of several keywords to one list of passages."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dsrl.core.digest import digest, text_digest
from dsrl.data.sample import Passage
from dsrl.stages.retrieve.index import Hit
from dsrl.stages.retrieve.ingest.chunking import pieces

WORD = re.compile(r"\w+")

Fault = Callable[[Passage], str | None]
"""Why a passage isn't wanted, in a few words; None: it is."""


FEWEST_HITS = 50
"""Hits of a keyword that are looked up at first."""


class Searching(Protocol):
    """What is asked of a searcher here."""

    def search_many(self, queries: Sequence[str], limit: int) -> list[list[Hit]]: ...


@dataclass(frozen=True)
class Found:
    """What the keywords led to."""

    hits: dict[str, list[Hit]]
    """Query -> as many of its hits as were looked at."""
    passages: tuple[Passage, ...]
    dropped: Counter[str]
    """Passages that were not wanted, by reason."""


def gather(
    searcher: Searching,
    queries: Sequence[str],
    number: int,
    max_chars: int,
    seed: int,
    faults: Callable[[], Sequence[Fault]],
) -> Found:
    """The first so many passages without a fault. Longer and longer lists of hits are looked at, until there are enough
    passages or no more hits."""
    limit = max(FEWEST_HITS, 2 * number // len(queries))
    while True:
        hits = dict(zip(queries, searcher.search_many(queries, limit), strict=True))
        dropped: Counter[str] = Counter()
        found = wanted(interleave(hits, max_chars, seed), faults(), dropped)
        passages = tuple(itertools.islice(found, number))
        if len(passages) == number or all(len(some) < limit for some in hits.values()):
            return Found(hits, passages, dropped)
        limit *= 4


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
            marks = {passage.id, text_digest(passage.text)}
            if passage.text and not marks & seen:
                yield passage
            seen |= marks


def wanted(passages: Iterable[Passage], faults: Sequence[Fault], dropped: Counter[str]) -> Iterator[Passage]:
    """The passages without a fault; the others are counted, by the first fault found."""
    for passage in passages:
        fault = next(filter(None, (find(passage) for find in faults)), None)
        if fault is None:
            yield passage
        else:
            dropped[fault] += 1


def low_score(least: float) -> Fault:
    """A score under the least that is wanted."""
    return lambda passage: "low score" if passage.score < least else None


def over_quota(quotas: Mapping[str, int], per_document: int | None) -> Fault:
    """More passages of one corpus, or of one document, than are wanted; asked last, because it counts."""
    taken: Counter[str] = Counter()

    def find(passage: Passage) -> str | None:
        corpus = passage.source.partition("/")[0]
        if corpus in quotas and taken[f"corpus {corpus}"] >= quotas[corpus]:
            return "quota of its corpus"
        if per_document is not None and taken[passage.source] >= per_document:
            return "quota of its document"
        taken.update((f"corpus {corpus}", passage.source))
        return None

    return find


def make_passage(hit: Hit, keyword: str, rank: int, max_chars: int) -> Passage:
    """The hit's text, or of a longer one the part that shares most words with the keyword."""
    sought = set(WORD.findall(keyword.lower()))
    choices = list(pieces(hit.text, max_chars)) or [(0, "")]
    within, text = max(choices, key=lambda piece: len(sought.intersection(WORD.findall(piece[1].lower()))))
    offset = hit.offset + within
    identifier = f"{hit.source}@{offset}" if offset else hit.source
    return Passage(
        id=identifier, text=text, source=hit.source, offset=offset, keyword=keyword, rank=rank, score=hit.score
    )
