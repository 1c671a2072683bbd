"""How much texts differ among themselves: distinct n-grams, lengths, and how near the nearest other text is."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from dsrl.data.overlap.tokenize import plain, words

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float32]

DISTINCT = (1, 2, 3)
NUM_BINS = 24


def split(text: str) -> list[str]:
    return [plain(word) for word in words(text)]


def distinct(texts: Sequence[Sequence[str]], size: int) -> float | None:
    """Different runs of so many words over all of them (distinct-n); falls with the number of texts, so that only sets
    of one size may be compared. None without any."""
    runs = [tuple(text[place : place + size]) for text in texts for place in range(len(text) - size + 1)]
    return len(set(runs)) / len(runs) if runs else None


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, median, and what one in twenty is below or above."""
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [float(values[0])] * 19
    return {"mean": sum(values) / len(values), "p5": cuts[0], "p50": cuts[9], "p95": cuts[18]}


def edges(lengths: Sequence[Sequence[int]]) -> list[int]:
    """Bounds of bins that hold 99 of 100 texts; the last bin holds the others, too."""
    every = sorted(length for some in lengths for length in some)
    last = every[int(0.99 * (len(every) - 1))] + 1 if every else 1
    width = max(1, math.ceil(last / NUM_BINS))
    return [width * place for place in range(math.ceil(last / width) + 1)]


def histogram(lengths: Sequence[int], bounds: Sequence[int]) -> list[int]:
    """Texts in each bin."""
    width, last = bounds[1] - bounds[0], len(bounds) - 2
    counts = Counter(min(length // width, last) for length in lengths)
    return [counts[place] for place in range(last + 1)]


def vectors(groups: Sequence[Sequence[Sequence[str]]]) -> "list[Floats]":
    """Texts as tf-idf vectors of length one; the words that stand in one text alone, which tell nothing of two, count
    for its length only. One vocabulary for all groups."""
    import numpy

    every = [Counter(text) for group in groups for text in group]
    spread_of = Counter(word for text in every for word in text)
    columns = {word: place for place, word in enumerate(word for word, count in spread_of.items() if count > 1)}
    weights = numpy.zeros((len(every), len(columns)), dtype=numpy.float32)
    for row, text in enumerate(every):
        values = {word: count * math.log(len(every) / spread_of[word]) for word, count in text.items()}
        length = math.sqrt(sum(value * value for value in values.values())) or 1.0
        for word, value in values.items():
            if word in columns:
                weights[row, columns[word]] = value / length
    ends = numpy.cumsum([len(group) for group in groups])[:-1]
    return numpy.split(weights, ends)


def similarity(texts: "Floats") -> dict[str, Any] | None:
    """Cosines: mean over all pairs, and of each text with the nearest other one. None for fewer than two."""
    import numpy

    if len(texts) < 2:
        return None
    cosines = texts @ texts.T
    numpy.fill_diagonal(cosines, 0)
    nearest = cosines.max(axis=1)
    pairs = float(cosines.sum(dtype=numpy.float64)) / (len(texts) * (len(texts) - 1))
    return {"pairs": round(pairs, 4), **_nearest(nearest)}


def nearest_in(texts: "Floats", others: "Floats") -> dict[str, Any] | None:
    """Cosine of each text with the nearest of the others."""
    return _nearest((texts @ others.T).max(axis=1)) if len(texts) and len(others) else None


def _nearest(cosines: "Floats") -> dict[str, Any]:
    import numpy

    quantile = float(numpy.quantile(cosines, 0.95))
    return {"nearest": round(float(cosines.mean()), 4), "nearest_p95": round(quantile, 4)}
