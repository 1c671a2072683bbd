"""Diversity of the samples beside the test set: distinct n-grams, lengths, nearest neighbours, balance of answers."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.data.overlap.tokenize import normalise_word, words
from dsrl.forecast.workload import Workload
from dsrl.graders import Choice, Label
from dsrl.pipeline.stage import Stage

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from dsrl.forecast.workload import ForecastState, StageForecast
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

    Vectors = NDArray[numpy.float32]

NGRAM_SIZES = (1, 2, 3)
NUM_BINS = 24

Words = Sequence[str]


@component("stages.diversity")
class Diversity(Stage):
    """Measures all samples, the selected ones and the test set (the paper's figures 19 to 24, without an embedding
    model). It changes nothing and is never stored."""

    name: ClassVar[str] = "diversity"
    inputs = ("samples",)
    outputs = ()
    stored: ClassVar[bool] = False
    published: ClassVar[tuple[str, ...]] = ("sets", "edges", "drawn", "answers")

    draws: int = Field(default=1000, ge=2)
    """Texts of each set, drawn at random, that are compared with each other."""
    seed: int = 0

    def forecast(self, before: "ForecastState") -> "StageForecast":
        return before.forecast(Workload())

    def __call__(self, state: "PipelineState", context: "Context") -> "PipelineState":  # noqa: ARG002
        source = state.task.test
        items = source.load(state.task.answer) if source else []
        selected = state.chosen(state.selected)
        texts = {
            "samples": [sample.input for sample in state.samples],
            "selected": [sample.input for sample in selected],
            "test": [item.input for item in items],
        }
        answers = {
            "samples": [sample.answer for sample in state.samples],
            "selected": [sample.answer for sample in selected],
            "test": [item.answer for item in items],
        }
        figures = self._measure({name: group for name, group in texts.items() if group})
        figures["answers"] = answer_balance(answers) if isinstance(state.task.answer, (Choice, Label)) else None
        return state.add(figures=figures)

    def _measure(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        if not texts:
            return {"sets": {}, "edges": [], "drawn": 0}
        split = {name: [split_words(text) for text in group] for name, group in texts.items()}
        lengths = {name: [len(text) for text in group] for name, group in split.items()}
        edges = bin_edges(list(lengths.values()))
        drawn = {name: self._draw(name, group) for name, group in split.items()}
        common_size = min(len(group) for group in drawn.values())
        vectors = dict(zip(drawn, tfidf_vectors(list(drawn.values())), strict=True))
        sets: dict[str, dict[str, Any]] = {
            name: {
                "count": len(group),
                "words": summarise(lengths[name]),
                "lengths": histogram(lengths[name], edges),
                "distinct": {str(size): distinct_share(drawn[name][:common_size], size) for size in NGRAM_SIZES},
                "similarity": similarity_within(vectors[name]),
                "to_test": similarity_to(vectors[name], vectors["test"]) if "test" in vectors else None,
            }
            for name, group in split.items()
        }
        if "test" in sets:
            sets["test"]["to_test"] = None
        return {"sets": sets, "edges": edges, "drawn": common_size}

    def _draw(self, name: str, texts: Sequence[Words]) -> Sequence[Words]:
        """Draw `draws` texts in an order that depends on their contents and the seed, not on their positions."""
        return sorted(texts, key=lambda text: digest([self.seed, name, text]))[: self.draws]


def answer_balance(answers: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """For each non-empty set: answer -> share, the same answers for every set, in alphabetical order."""
    known = sorted({answer for group in answers.values() for answer in group})
    return {
        name: {answer: counts[answer] / len(group) for answer in known}
        for name, group in answers.items()
        if group and (counts := Counter(group))
    }


def split_words(text: str) -> list[str]:
    return [normalise_word(word) for word in words(text)]


def distinct_share(texts: Sequence[Words], size: int) -> float | None:
    """distinct-n: distinct n-grams over all n-grams, None without any. It falls with the number of texts, so compare
    only sets of equal size."""
    ngrams = [tuple(text[start : start + size]) for text in texts for start in range(len(text) - size + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Mean and the 5th, 50th and 95th percentiles."""
    cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [float(values[0])] * 19
    return {"mean": sum(values) / len(values), "p5": cuts[0], "p50": cuts[9], "p95": cuts[18]}


def bin_edges(lengths: Sequence[Sequence[int]]) -> list[int]:
    """Edges of at most `NUM_BINS` equal bins up to the 99th percentile; the last bin also takes everything longer."""
    ordered = sorted(length for group in lengths for length in group)
    last = ordered[int(0.99 * (len(ordered) - 1))] + 1 if ordered else 1
    width = max(1, math.ceil(last / NUM_BINS))
    return [width * number for number in range(math.ceil(last / width) + 1)]


def histogram(lengths: Sequence[int], edges: Sequence[int]) -> list[int]:
    width, last = edges[1] - edges[0], len(edges) - 2
    counts = Counter(min(length // width, last) for length in lengths)
    return [counts[number] for number in range(last + 1)]


def tfidf_vectors(groups: Sequence[Sequence[Words]]) -> "list[Vectors]":
    """Unit tf-idf vectors of each group, shape (texts, vocabulary), over one vocabulary.

    Words that occur in one text alone can't be shared: they have no column, but count in the norm.
    """
    import numpy

    counts = [Counter(text) for group in groups for text in group]
    frequency = Counter(word for count in counts for word in count)
    columns = {word: column for column, word in enumerate(word for word, number in frequency.items() if number > 1)}
    vectors = numpy.zeros((len(counts), len(columns)), dtype=numpy.float32)
    for row, count in enumerate(counts):
        weights = {word: number * math.log(len(counts) / frequency[word]) for word, number in count.items()}
        norm = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
        for word, weight in weights.items():
            if word in columns:
                vectors[row, columns[word]] = weight / norm
    return numpy.split(vectors, numpy.cumsum([len(group) for group in groups])[:-1])


def similarity_within(vectors: "Vectors") -> dict[str, Any] | None:
    """Cosine similarities: the mean over all pairs, and of each text with its nearest neighbour. None for fewer than
    two texts."""
    import numpy

    if len(vectors) < 2:
        return None
    cosines = vectors @ vectors.T
    numpy.fill_diagonal(cosines, 0)
    pairs = float(cosines.sum(dtype=numpy.float64)) / (len(vectors) * (len(vectors) - 1))
    return {"pairs": round(pairs, 4), **_summarise_nearest(cosines.max(axis=1))}


def similarity_to(vectors: "Vectors", others: "Vectors") -> dict[str, Any] | None:
    """Cosine similarity of each text with its nearest neighbour among the others."""
    return _summarise_nearest((vectors @ others.T).max(axis=1)) if len(vectors) and len(others) else None


def _summarise_nearest(cosines: "Vectors") -> dict[str, Any]:
    import numpy

    return {
        "nearest": round(float(cosines.mean()), 4),
        "nearest_p95": round(float(numpy.quantile(cosines, 0.95)), 4),
    }
