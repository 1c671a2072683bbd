"""Synthetic Data RL's generator: pattern, a few demos and one passage in the prompt (paper, section 3.1)."""

import random
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.core.component import component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.forecast import defaults
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN
from dsrl.llm.structured.answer import TEMPLATES, ask_until_usable
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.base import GenerationInputs, TeacherGenerator
from dsrl.stages.generate.candidate import DraftPrompt

if TYPE_CHECKING:
    from dsrl.llm import Client

MAX_PATTERN_DEMOS = 50
"""Demos shown when the pattern is described."""


class Pattern(BaseModel):  # sent with the request: another name or docstring would change its digest
    """What samples look like, in general words."""

    pattern: str = Field(min_length=1)


@component("stages.generate")
class Generate(TeacherGenerator):
    """Candidate i gets one passage, the pattern of the demos, and a few demos drawn by (seed, i)."""

    inputs = ("definition", "passages")
    templates: ClassVar[tuple[str, ...]] = ("generate", "pattern", *TEMPLATES)

    pattern: bool = True
    """Have the teacher describe the demos in general words first, and show the description in every prompt."""
    demos_per_prompt: int = Field(default=3, ge=0)
    demo_draw: Literal["always", "sparse"] = "always"
    """`sparse`: a prompt shows demos with probability (number of demos) / n only, and the pattern only beside demos, as
    in the authors' code."""
    passage_order: Literal["ranked", "shuffled"] = "ranked"
    """Whether candidate i gets passage i, or the i-th of all passages in seeded order."""

    def num_setup_calls(self, state: PipelineState) -> int:
        return int(self.pattern and bool(state.task.demos))

    async def setup_call(self, number: int, state: PipelineState, client: "Client") -> str:  # noqa: ARG002
        """The pattern of the demos."""
        prompt = prompts.render("pattern", task=state.task, demos=state.task.demos[:MAX_PATTERN_DEMOS], pattern=None)
        answer = await ask_until_usable(client.ask, [{"role": "user", "content": prompt}], Pattern, temperature=0.0)
        if answer.value is None:
            raise StageFailed(
                "generate: the teacher gave no pattern of the demos", got=f"{answer.error}: {answer.detail}"
            )
        return answer.value.pattern

    def placeholder(self) -> tuple[str, Range]:
        tokens = defaults.PATTERN_TOKENS
        return "x" * round(tokens.expected * CHARACTERS_PER_TOKEN), tokens

    def shared_figures(self, shared: Any) -> dict[str, Any]:
        return {"pattern_text": [shared]}

    async def draft_prompt(self, number: int, inputs: GenerationInputs) -> DraftPrompt:
        task, passages = inputs.state.task, inputs.state.passages
        demos = self._draw_demos(number, len(task.demos))
        passage = None
        if passages:
            place = number % len(passages)
            if self.passage_order == "shuffled":
                place = shuffled(self.seed, len(passages))[place]
            passage = passages[place]
        text = prompts.render(
            "generate",
            task=task.turn(number),
            pattern=inputs.shared if demos or self.demo_draw == "always" else None,
            demos=[task.demos[place] for place in demos],
            passage=passage.text if passage else None,
            picture=bool(inputs.images),
            index=number,
        )
        return DraftPrompt(
            text,
            number,
            demos=demos,
            keyword=passage.keyword if passage else None,
            passage=passage.id if passage else None,
        )

    def _draw_demos(self, number: int, num_demos: int) -> tuple[int, ...]:
        """Positions of the demos that candidate `number` is shown."""
        rng = random.Random(digest([self.seed, "candidate", number]))
        drawn = sorted(rng.sample(range(num_demos), min(self.demos_per_prompt, num_demos)))
        skip = self.demo_draw == "sparse" and rng.random() >= num_demos / self.n
        return () if skip else tuple(drawn)


@cache
def shuffled(seed: int, count: int) -> tuple[int, ...]:
    """The numbers below `count` in seeded order."""
    numbers = list(range(count))
    random.Random(digest([seed, "passages"])).shuffle(numbers)
    return tuple(numbers)
