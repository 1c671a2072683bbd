"""A graph of what documents are about, and walks through it: the heart of SynthLLM (arXiv 2503.19551)."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import permutations, product
from typing import NamedTuple

from pydantic import BaseModel

from dsrl.core.digest import normalised


class Concepts(BaseModel):
    """What one document is about, as the teacher says it."""

    topics: list[str]
    concepts: list[str]


class Walk(NamedTuple):
    """What a new question is to combine."""

    topics: tuple[str, ...]
    concepts: tuple[str, ...]


class Graph:
    """Topics and concepts as nodes; an edge weighs as many documents as hold both of its ends."""

    def __init__(self, documents: Sequence[Concepts]) -> None:
        self.documents = [Walk(distinct(one.topics), distinct(one.concepts)) for one in documents]
        self._topics: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._across: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._concepts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for topics, concepts in self.documents:
            _link(self._topics, permutations(topics, 2))
            _link(self._across, product(topics, concepts))
            _link(self._concepts, permutations(concepts, 2))

    @property
    def num_concepts(self) -> int:
        return len({concept for document in self.documents for concept in document.concepts})

    def walk(self, start: int, topic_steps: int, concept_steps: int, rng: random.Random) -> Walk:
        """From a topic of document `start` over so many topics to a concept, and over so many concepts; a node without
        a neighbour ends that part. Each step goes to a neighbour with a chance by the weight of the edge."""
        document = self.documents[start]
        topics = self._path(self._topics, document.topics, topic_steps, rng)
        reached = self._across.get(topics[-1], Counter()) if topics else Counter()
        concepts = self._path(self._concepts, _drawn(reached, rng) or document.concepts, concept_steps, rng)
        return Walk(topics, concepts)

    def _path(
        self, edges: dict[str, Counter[str]], begin: Sequence[str], steps: int, rng: random.Random
    ) -> tuple[str, ...]:
        path = [rng.choice(begin)] if begin else []
        for _ in range(steps if path else 0):
            path += _drawn(edges.get(path[-1], Counter()), rng)
        return tuple(dict.fromkeys(path))

    def nearest(self, walk: Walk, count: int) -> list[int]:
        """The documents that share most with a walk, by Jaccard similarity; equals in their order."""
        wanted = {*walk.topics, *walk.concepts}
        return sorted(range(len(self.documents)), key=lambda place: (-_jaccard(wanted, self.documents[place]), place))[
            :count
        ]


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """In one spelling, each once."""
    return tuple(dict.fromkeys(filter(None, map(normalised, names))))


def _link(edges: defaultdict[str, Counter[str]], pairs: Iterable[tuple[str, str]]) -> None:
    for one, other in pairs:
        edges[one][other] += 1


def _drawn(neighbours: Counter[str], rng: random.Random) -> list[str]:
    names = sorted(neighbours)
    return rng.choices(names, [neighbours[name] for name in names]) if names else []


def _jaccard(wanted: set[str], document: Walk) -> float:
    held = {*document.topics, *document.concepts}
    return len(wanted & held) / len(wanted | held) if held else 0.0
