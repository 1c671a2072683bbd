"""SynthLLM (arXiv 2503.19551): topics and key concepts of documents, recombined across documents into new questions."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl import prompts
from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.core.estimate import Range
from dsrl.data.sample import Rejected, Sample
from dsrl.forecast import defaults
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import Desk, TeacherGenerator
from dsrl.stages.generate.concepts import Concepts, Graph

if TYPE_CHECKING:
    from dsrl.llm import Client


@component("stages.generate.synthllm")
class SynthLlm(TeacherGenerator):
    """The passages are the documents. Candidate i begins its walk in document i, so that all come into play, and shows
    the documents nearest to what the walk has met. With no steps at all it recombines a single document (level 2 of the
    method), with some it crosses documents (level 3)."""

    place: ClassVar[str] = "synthllm"
    inputs = ("definition", "passages")
    templates: ClassVar[tuple[str, ...]] = ("recombine", "concepts", *TEMPLATES)

    topic_steps: int = Field(default=1, ge=0)
    concept_steps: int = Field(default=3, ge=0)
    documents: int = Field(default=2, ge=1)
    """Passages shown with each prompt."""

    def pieces(self, state: PipelineState) -> int:
        """One for each passage; before these are known, as many as samples."""
        unknown = any(not passage.id for passage in state.passages)
        return self.n if unknown else len(state.passages)

    async def prepare(self, state: PipelineState, client: "Client", number: int) -> Concepts:
        """What passage `number` is about; nothing where the teacher can't say."""
        passage = state.passages[number % len(state.passages)]
        prompt = prompts.render("concepts", task=state.task, pattern=None, demos=(), passage=passage.text)
        answer = await ask_until_usable(client.ask, [{"role": "user", "content": prompt}], Concepts, temperature=0.0)
        return answer.value or Concepts(topics=[], concepts=[])

    def imagined(self, state: PipelineState) -> tuple[Concepts, Range]:  # noqa: ARG002
        names = [f"concept {number}" for number in range(6)]
        return Concepts(topics=["a topic"], concepts=names), defaults.KEYWORDS_TOKENS

    def assembled(self, state: PipelineState, pieces: Sequence[Concepts]) -> Graph:  # noqa: ARG002
        return Graph(pieces)

    def told(self, material: Any) -> dict[str, Any]:
        return {"documents": len(material.documents), "concepts": material.num_concepts}

    async def attempt(self, number: int, desk: Desk) -> Sample | Rejected:
        graph, task, passages = desk.material, desk.state.task, desk.state.passages
        useful = [place for place, document in enumerate(graph.documents) if document.topics or document.concepts]
        if not useful:
            raise StageFailed(
                "synthllm: there are no concepts to recombine",
                got=f"{len(passages)} passages",
                next_step="give passages (retriever=embedded retriever.corpora=[...]) or another teacher",
            )
        rng = random.Random(digest([self.seed, "candidate", number]))
        start = useful[number % len(useful)]
        walk = graph.walk(start, self.topic_steps, self.concept_steps, rng)
        places = graph.nearest(walk, self.documents)
        shown = [passages[place % len(passages)] for place in places]
        prompt = prompts.render(
            "recombine",
            task=task.turn(number),
            pattern=None,
            demos=(),
            topics=walk.topics,
            concepts=walk.concepts,
            passages=[passage.text for passage in shown],
            index=number,
        )
        return await self.draft(number, desk, prompt, passage=shown[0].id, keyword=shown[0].keyword)
