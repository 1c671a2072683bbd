"""SynthLLM (arXiv 2503.19551): topics and key concepts of documents, recombined across documents into new questions."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import permutations, product
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import component
from dsrl.core.digest import digest, normalised
from dsrl.core.errors import StageFailed
from dsrl.forecast import defaults
from dsrl.forecast.estimate import Range
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import GenerationInputs, TeacherGenerator
from dsrl.stages.generate.candidate import DraftPrompt

if TYPE_CHECKING:
    from dsrl.llm import Client


class Concepts(BaseModel):  # sent with the request: another name or docstring would change its digest
    """What one document is about, as the teacher says it."""

    topics: list[str]
    concepts: list[str]


class ConceptPath(NamedTuple):
    """Topics and concepts that a new question is to combine, or those of one document."""

    topics: tuple[str, ...]
    concepts: tuple[str, ...]


@component("stages.generate.synthllm")
class SynthLlm(TeacherGenerator):
    """The passages are the documents. Candidate i starts its random walk in document i, so that all are used, and shows
    the documents closest to the concepts on the walk. With no steps it recombines a single document (level 2 of the
    method), else it crosses documents (level 3)."""

    place: ClassVar[str] = "synthllm"
    inputs = ("definition", "passages")
    templates: ClassVar[tuple[str, ...]] = ("recombine", "concepts", *TEMPLATES)

    topic_steps: int = Field(default=1, ge=0)
    concept_steps: int = Field(default=3, ge=0)
    documents: int = Field(default=2, ge=1)
    """Passages in each prompt."""

    def num_setup_calls(self, state: PipelineState) -> int:
        """One for each passage; for a forecast before passages are known, as many as samples."""
        unknown = any(not passage.id for passage in state.passages)
        return self.n if unknown else len(state.passages)

    async def setup_call(self, number: int, state: PipelineState, client: "Client") -> Concepts:
        """Topics and concepts of passage `number`; none if the teacher gives none."""
        passage = state.passages[number % len(state.passages)]
        prompt = prompts.render("concepts", task=state.task, pattern=None, demos=(), passage=passage.text)
        answer = await ask_until_usable(client.ask, [{"role": "user", "content": prompt}], Concepts, temperature=0.0)
        return answer.value or Concepts(topics=[], concepts=[])

    def placeholder(self) -> tuple[Concepts, Range]:
        names = [f"concept {number}" for number in range(6)]
        return Concepts(topics=["a topic"], concepts=names), defaults.KEYWORDS_TOKENS

    def build_shared(self, results: Sequence[Concepts]) -> "ConceptGraph":
        return ConceptGraph(results)

    def shared_figures(self, shared: Any) -> dict[str, Any]:
        return {"documents": len(shared.documents), "concepts": shared.num_concepts}

    async def draft_prompt(self, number: int, inputs: GenerationInputs) -> DraftPrompt:
        graph, task, passages = inputs.shared, inputs.state.task, inputs.state.passages
        usable_documents = [place for place, one in enumerate(graph.documents) if one.topics or one.concepts]
        if not usable_documents:
            raise StageFailed(
                "synthllm: no concepts to recombine",
                got=f"{len(passages)} passages",
                next_step="give passages (retriever=embedded retriever.corpora=[...]) or another teacher",
            )
        rng = random.Random(digest([self.seed, "candidate", number]))
        start = usable_documents[number % len(usable_documents)]
        path = graph.walk(start, self.topic_steps, self.concept_steps, rng)
        shown = [passages[place % len(passages)] for place in graph.nearest(path, self.documents)]
        text = prompts.render(
            "recombine",
            task=task.turn(number),
            pattern=None,
            demos=(),
            topics=path.topics,
            concepts=path.concepts,
            passages=[passage.text for passage in shown],
            index=number,
        )
        return DraftPrompt(text, number, keyword=shown[0].keyword, passage=shown[0].id)


class ConceptGraph:
    """Topics and concepts as nodes; the weight of an edge is the number of documents that hold both ends."""

    def __init__(self, documents: Sequence[Concepts]) -> None:
        self.documents = [ConceptPath(distinct(one.topics), distinct(one.concepts)) for one in documents]
        self._topic_edges: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._topic_concept_edges: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._concept_edges: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for topics, concepts in self.documents:
            count_edges(self._topic_edges, permutations(topics, 2))
            count_edges(self._topic_concept_edges, product(topics, concepts))
            count_edges(self._concept_edges, permutations(concepts, 2))

    @property
    def num_concepts(self) -> int:
        return len({concept for document in self.documents for concept in document.concepts})

    def walk(self, start: int, topic_steps: int, concept_steps: int, rng: random.Random) -> ConceptPath:
        """A random walk from a topic of document `start` over topics to a concept, and on over concepts. A step goes to
        a neighbour with probability proportional to the edge's weight; a node without neighbours ends that part."""
        document = self.documents[start]
        topics = self._path(self._topic_edges, document.topics, topic_steps, rng)
        reached = self._topic_concept_edges.get(topics[-1], Counter()) if topics else Counter()
        concepts = self._path(
            self._concept_edges, draw_neighbour(reached, rng) or document.concepts, concept_steps, rng
        )
        return ConceptPath(topics, concepts)

    def _path(
        self, edges: dict[str, Counter[str]], starts: Sequence[str], steps: int, rng: random.Random
    ) -> tuple[str, ...]:
        path = [rng.choice(starts)] if starts else []
        for _ in range(steps if path else 0):
            path += draw_neighbour(edges.get(path[-1], Counter()), rng)
        return tuple(dict.fromkeys(path))

    def nearest(self, path: ConceptPath, count: int) -> list[int]:
        """Positions of the documents that share most with a path, by Jaccard similarity; ties in their order."""
        wanted = {*path.topics, *path.concepts}

        def similarity(place: int) -> float:
            names = {*self.documents[place].topics, *self.documents[place].concepts}
            return len(wanted & names) / len(wanted | names) if names else 0.0

        return sorted(range(len(self.documents)), key=lambda place: (-similarity(place), place))[:count]


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """The names in one spelling, each once."""
    return tuple(dict.fromkeys(filter(None, map(normalised, names))))


def count_edges(edges: defaultdict[str, Counter[str]], pairs: Iterable[tuple[str, str]]) -> None:
    for first, second in pairs:
        edges[first][second] += 1


def draw_neighbour(neighbours: Counter[str], rng: random.Random) -> list[str]:
    """One neighbour with probability proportional to its weight; empty if there is none."""
    names = sorted(neighbours)
    return rng.choices(names, [neighbours[name] for name in names]) if names else []
