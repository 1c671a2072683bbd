"""Synthetic passages and queries for measuring retrieval: Zipf-distributed words, a topic for each passage, seeded.

    python benchmarks/passages.py 100000 passages.jsonl.gz
    python benchmarks/passages.py 1000 queries.txt --queries

Needs numpy only. The same numbers give the same bytes; a longer file begins with the shorter one.
"""

import argparse
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

VOCABULARY = 75_000
TOPICS, TOPIC_WORDS = 5_000, 120
TOPIC_SHARE = 0.35
"""Share of a passage's words that come from its topic."""
MEAN_WORDS, SPREAD = 95, 0.35
BLOCK = 10_000
"""Passages sampled together."""
ONSETS = "b br c ch d dr f fl g gr h j k l m n p pl pr qu r s sh sl sp st t th tr v w".split()  # noqa: SIM905
VOWELS = "a ai e ea ee i ie o oa oo ou u".split()  # noqa: SIM905
CODAS = ["", "", "n", "r", "s", "t", "l", "m", "ck", "nd", "st"]
COMMON = (  # noqa: SIM905
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all her she there would their we him been has when who will no more if out so what up said its about"
).split()


def vocabulary() -> np.ndarray:
    """Words by decreasing frequency: common English words, then pronounceable invented ones."""
    random = np.random.default_rng(11)
    syllables = [f"{onset}{vowel}{coda}" for onset in ONSETS for vowel in VOWELS for coda in sorted(set(CODAS))]
    words = dict.fromkeys(COMMON)
    for draws in random.integers(0, len(syllables), size=(2 * VOCABULARY, 3)):
        words.setdefault("".join(syllables[draw] for draw in draws[: 1 + draws[0] % 3]))
    return np.array(list(words)[:VOCABULARY])


def topics() -> np.ndarray:
    """Ranks of each topic's words, excluding the commonest words."""
    return np.random.default_rng(12).integers(500, VOCABULARY, size=(TOPICS, TOPIC_WORDS))


def passages(count: int) -> Iterator[dict[str, str]]:
    """Rows with `id` and `text`."""
    words, subjects = vocabulary(), topics()
    weights = 1 / (np.arange(VOCABULARY) + 2.7) ** 1.05
    cumulated = np.cumsum(weights / weights.sum())
    numbers = itertools.count()
    for block in itertools.count():
        random = np.random.default_rng([13, block])
        sizes = np.clip(random.lognormal(np.log(MEAN_WORDS), SPREAD, BLOCK).astype(int), 12, 400)
        for size, topic in zip(sizes, random.integers(0, TOPICS, BLOCK), strict=True):
            number = next(numbers)
            if number == count:
                return
            ranks = np.searchsorted(cumulated, random.random(size)).clip(max=VOCABULARY - 1)
            of_topic = random.random(size) < TOPIC_SHARE
            ranks[of_topic] = subjects[topic][random.integers(0, TOPIC_WORDS, of_topic.sum())]
            yield {"id": f"p{number}", "text": prose(words[ranks].tolist())}


def prose(words: list[str]) -> str:
    """Sentences of twelve words."""
    starts = range(0, len(words), 12)
    return " ".join(" ".join(words[start : start + 12]).capitalize() + "." for start in starts)


def queries(count: int) -> Iterator[str]:
    """One to ten words of one topic."""
    words, subjects = vocabulary(), topics()
    random = np.random.default_rng(14)
    for _ in range(count):
        yield " ".join(words[random.choice(subjects[random.integers(TOPICS)], random.integers(1, 11))])


def main() -> None:
    """Write a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--queries", action="store_true", help="one query a line instead of passages")
    given = parser.parse_args()
    rows = queries(given.count) if given.queries else map(json.dumps, passages(given.count))
    with opened(given.file) as file:
        file.writelines(f"{row}\n" for row in rows)


def opened(path: Path) -> IO[str]:
    """Open a text file for writing; `.gz` files are compressed."""
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, "wt", compresslevel=6, encoding="utf-8"))
    return path.open("w", encoding="utf-8")


if __name__ == "__main__":
    main()
