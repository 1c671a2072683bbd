"""New samples: pattern, a few demos and one passage in, a verified sample out (paper, section 3.1)."""

import random
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.core.estimate import Range
from dsrl.data.sample import Rejected, Sample
from dsrl.data.task import Task
from dsrl.forecast import defaults
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import Desk, TeacherGenerator

if TYPE_CHECKING:
    from dsrl.llm import Client

MOST_DEMOS = 50
"""Demos shown when the pattern is described."""


class Pattern(BaseModel):
    """What samples look like, in general words."""

    pattern: str = Field(min_length=1)


@cache
def shuffled(seed: int, count: int) -> tuple[int, ...]:
    """The numbers below `count` in seeded order."""
    numbers = list(range(count))
    random.Random(digest([seed, "passages"])).shuffle(numbers)
    return tuple(numbers)


@component("stages.generate")
class Generate(TeacherGenerator):
    """The paper's way: one passage, the pattern of the demos and a few of them for each candidate."""

    inputs = ("definition", "passages")
    templates: ClassVar[tuple[str, ...]] = ("generate", "pattern", *TEMPLATES)

    pattern: bool = True
    """Have the teacher describe the demos in general words first, and show that with every prompt."""
    demos_per_prompt: int = Field(default=3, ge=0)
    demo_draw: Literal["always", "sparse"] = "always"
    """`sparse`: a prompt shows demos with a chance of their number over `n` only, and the pattern only beside demos, as
    in the authors' code."""
    passage_order: Literal["ranked", "shuffled"] = "ranked"
    """Whether candidate i gets passage i, or the i-th of all passages in a seeded order."""

    def pieces(self, state: PipelineState) -> int:
        return int(self.pattern and bool(state.task.demos))

    async def prepare(self, state: PipelineState, client: "Client", number: int) -> str:  # noqa: ARG002
        """The pattern of the demos."""
        prompt = prompts.render("pattern", task=state.task, demos=state.task.demos[:MOST_DEMOS], pattern=None)
        answer = await ask_until_usable(client.ask, [{"role": "user", "content": prompt}], Pattern, temperature=0.0)
        if answer.value is None:
            raise StageFailed(
                "generate: the teacher gave no pattern of the demos", got=f"{answer.error}: {answer.detail}"
            )
        return answer.value.pattern

    def imagined(self, state: PipelineState) -> tuple[str, Range]:  # noqa: ARG002
        written = defaults.PATTERN_TOKENS
        return "x" * round(written.expected * CHARACTERS_PER_TOKEN), written

    def told(self, material: Any) -> dict[str, Any]:
        return {"pattern_text": [material]}

    async def attempt(self, number: int, desk: Desk) -> Sample | Rejected:
        task, passages = desk.state.task, desk.state.passages
        demos = self._demos(number, task)
        passage = passages[self._place(number, len(passages))] if passages else None
        prompt = prompts.render(
            "generate",
            task=task.turn(number),
            pattern=desk.material if demos or self.demo_draw == "always" else None,
            demos=[task.demos[place] for place in demos],
            passage=passage.text if passage else None,
            picture=bool(desk.pictures),
            index=number,
        )
        keyword, identifier = (passage.keyword, passage.id) if passage else (None, None)
        return await self.draft(number, desk, prompt, demos=tuple(demos), keyword=keyword, passage=identifier)

    def _place(self, number: int, num_passages: int) -> int:
        place = number % num_passages
        return shuffled(self.seed, num_passages)[place] if self.passage_order == "shuffled" else place

    def _demos(self, number: int, task: Task) -> list[int]:
        """Places of the demos that candidate `number` is shown."""
        rng = random.Random(digest([self.seed, "candidate", number]))
        shown = sorted(rng.sample(range(len(task.demos)), min(self.demos_per_prompt, len(task.demos))))
        sparse = self.demo_draw == "sparse" and rng.random() >= len(task.demos) / self.n
        return [] if sparse else shown
