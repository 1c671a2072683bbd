"""Selects passages from the hits of several keywords."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dsrl.core.digest import digest, text_digest
from dsrl.data.overlap.index import OverlapIndex, rejection_reason
from dsrl.data.sample import Passage
from dsrl.stages.retrieve.ingest.chunking import split_text
from dsrl.stages.retrieve.searcher import Searcher, SearchHit

WORD = re.compile(r"\w+")
MIN_HITS = 50
"""Hits of a keyword that are fetched at first."""

PassageFilter = Callable[[Passage], str | None]
"""Returns why a passage is dropped, or None to keep it."""


@dataclass(frozen=True)
class SelectedPassages:
    """Result of `select_passages`."""

    hits: dict[str, list[SearchHit]]
    """Query -> its hits, as far as they were fetched."""
    passages: tuple[Passage, ...]
    dropped: Counter[str]
    """Reason -> number of passages that a filter dropped."""


def select_passages(
    searcher: Searcher,
    queries: Sequence[str],
    number: int,
    max_chars: int,
    seed: int,
    make_filters: Callable[[], Sequence[PassageFilter]],
) -> SelectedPassages:
    """The first `number` passages that pass all filters; fetches more hits until there are enough or no more.

    `make_filters` is called for each attempt, because filters may count.
    """
    limit = max(MIN_HITS, 2 * number // len(queries))
    while True:
        hits = dict(zip(queries, searcher.search_many(queries, limit), strict=True))
        dropped: Counter[str] = Counter()
        kept = filter_passages(interleave(hits, max_chars, seed), make_filters(), dropped)
        passages = tuple(itertools.islice(kept, number))
        if len(passages) == number or all(len(query_hits) < limit for query_hits in hits.values()):
            return SelectedPassages(hits, passages, dropped)
        limit *= 4


def interleave(hits: Mapping[str, Sequence[SearchHit]], max_chars: int, seed: int) -> Iterator[Passage]:
    """Yield the best passage of every keyword, then the second best of every keyword, and so on, without repeats.

    Within a rank the keywords are shuffled with `seed`. Fetching more hits only appends passages, so more samples of
    a task begin with the same passages.
    """
    seen: set[str] = set()
    for rank in range(max(map(len, hits.values()), default=0)):
        keywords = [keyword for keyword, keyword_hits in hits.items() if rank < len(keyword_hits)]
        random.Random(digest([seed, "passages", rank])).shuffle(keywords)
        for keyword in keywords:
            passage = make_passage(hits[keyword][rank], keyword, rank, max_chars)
            keys = {passage.id, text_digest(passage.text)}
            if passage.text and not keys & seen:
                yield passage
            seen |= keys


def make_passage(hit: SearchHit, keyword: str, rank: int, max_chars: int) -> Passage:
    """The text of a hit; if it is too long, the part that shares most words with the keyword."""
    keyword_words = set(WORD.findall(keyword.lower()))
    parts = list(split_text(hit.text, max_chars)) or [(0, "")]
    start, text = max(parts, key=lambda part: len(keyword_words.intersection(WORD.findall(part[1].lower()))))
    offset = hit.offset + start
    return Passage(
        id=f"{hit.source}@{offset}" if offset else hit.source,
        text=text,
        source=hit.source,
        offset=offset,
        keyword=keyword,
        rank=rank,
        score=hit.score,
    )


def filter_passages(
    passages: Iterable[Passage], filters: Sequence[PassageFilter], dropped: Counter[str]
) -> Iterator[Passage]:
    """Yield the passages that every filter keeps; count the others in `dropped` by the first reason."""
    for passage in passages:
        fault = next(filter(None, (check(passage) for check in filters)), None)
        if fault is None:
            yield passage
        else:
            dropped[fault] += 1


def score_filter(min_score: float) -> PassageFilter:
    """Drops passages with a lower score."""
    return lambda passage: "low score" if passage.score < min_score else None


def quota_filter(quotas: Mapping[str, int], max_per_document: int | None) -> PassageFilter:
    """Drops passages beyond the quota of their corpus or document. It counts what it keeps, so it must come last."""
    kept: Counter[str] = Counter()

    def check(passage: Passage) -> str | None:
        corpus = passage.source.partition("/")[0]
        if corpus in quotas and kept[f"corpus {corpus}"] >= quotas[corpus]:
            return "quota of its corpus"
        if max_per_document is not None and kept[passage.source] >= max_per_document:
            return "quota of its document"
        kept.update((f"corpus {corpus}", passage.source))
        return None

    return check


def overlap_filter(items: Sequence[str], ngrams: Sequence[int] = (13, 8)) -> PassageFilter:
    """Drops passages that contain a test item or share n-grams with one. Names and numbers are not masked."""
    index = OverlapIndex(items, ngrams, renamed=None, reworded=None)

    def check(passage: Passage) -> str | None:
        surest = min(index.find_overlaps([passage.text]), key=lambda hit: hit.rank, default=None)
        if surest is None:
            return None
        return rejection_reason("whole" if surest.kind == "same" else surest.kind, surest.size)

    return check
