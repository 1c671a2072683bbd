"""New samples: pattern, a few demos and one passage in, a verified sample out (paper, section 3.1)."""

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from dsrl import prompts
from dsrl.digest import digest
from dsrl.errors import StageFailed
from dsrl.generate.candidate import Candidate, SampleDraft, Verifier, unusable, verified
from dsrl.generate.loop import Harvest, accept_until
from dsrl.llm import Endpoint
from dsrl.part import Many, part
from dsrl.sample import Passage, Provenance, Rejected, Sample
from dsrl.stage import Stage
from dsrl.study import Study

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.llm import Client

MOST_DEMOS = 50
"""Demos shown when the pattern is described."""


class Pattern(BaseModel):
    """What samples look like, in general words."""

    pattern: str = Field(min_length=1)


@part
class Generate(Stage):
    """Writes candidates until `n` are accepted. Candidate i depends only on (seed, i)."""

    name: ClassVar[str] = "generate"
    needs: ClassVar[tuple[str, ...]] = ("definition", "passages")
    adds: ClassVar[tuple[str, ...]] = ("samples",)
    templates: ClassVar[tuple[str, ...]] = ("pattern", "generate")

    teacher: Endpoint
    n: int = Field(ge=1)
    max_candidates: int | None = Field(default=None, ge=1)
    """Give up after so many candidates; None: four times `n`."""
    pattern: bool = True
    """Have the teacher describe the demos in general words first, and show that with every prompt."""
    demos_per_prompt: int = Field(default=3, ge=0)
    temperature: float = Field(default=0.7, ge=0)
    verify: Many[Verifier] = ()
    """Verifiers, asked in this order."""
    seed: int = 0

    def __call__(self, study: Study, context: "Context") -> Study:
        return asyncio.run(self._generate(study, context))

    async def _generate(self, study: Study, context: "Context") -> Study:
        most = self.max_candidates or 4 * self.n
        harvest = Harvest(self.name)
        async with context.connect(self.teacher, "teacher") as client:
            pattern = await self._pattern(study, client)
            writer = Writer(self, study, client, pattern)
            with context.progress.task("generate", self.n) as shown:
                window = 2 * self.teacher.concurrency
                await accept_until(self.n, most, window, writer.attempt, harvest, shown)
        self._check(harvest, most, context)
        return study.add(
            samples=tuple(harvest.accepted),
            rejected=tuple(harvest.rejected),
            figures={"rows": {"in": harvest.settled, "out": len(harvest.accepted)}, "pattern_text": [pattern]},
        )

    async def _pattern(self, study: Study, client: "Client") -> str | None:
        if not (self.pattern and study.task.demos):
            return None
        prompt = prompts.render("pattern", task=study.task, demos=study.task.demos[:MOST_DEMOS], pattern=None)
        answer = await client.ask([{"role": "user", "content": prompt}], Pattern, temperature=0.0)
        if answer.value is None:
            raise StageFailed(
                "generate: the teacher gave no pattern of the demos", got=f"{answer.error}: {answer.detail}"
            )
        return answer.value.pattern

    def _check(self, harvest: Harvest, most: int, context: "Context") -> None:
        """Too few is said, none at all is a failure."""
        if len(harvest.accepted) == self.n:
            return
        reasons = ", ".join(f"{count} x {reason}" for reason, count in count_reasons(harvest.rejected))
        text = f"generate: {len(harvest.accepted)} of {self.n} samples after {most} candidates ({reasons})"
        if not harvest.accepted:
            raise StageFailed(
                text, next_step="look at the rejected ones with stop_after, or raise generate.max_candidates"
            )
        context.progress.warn(text)


class Writer:
    """Makes candidate i out of the task, its demos and passage i."""

    def __init__(self, stage: Generate, study: Study, client: "Client", pattern: str | None) -> None:
        self.stage, self.study, self.client, self.pattern = stage, study, client, pattern
        self.prompt_digest = digest(prompts.source("generate"))

    async def attempt(self, number: int) -> Sample | Rejected:
        """Write one candidate and put it before the verifiers."""
        stage, task = self.stage, self.study.task
        rng = random.Random(digest([stage.seed, "candidate", number]))
        demos = sorted(rng.sample(range(len(task.demos)), min(stage.demos_per_prompt, len(task.demos))))
        passage = self._passage(number)
        prompt = prompts.render(
            "generate",
            task=task,
            pattern=self.pattern,
            demos=[task.demos[place] for place in demos],
            passage=passage.text if passage else None,
            index=number,
        )
        messages = [{"role": "user", "content": prompt}]
        answer = await self.client.ask(messages, SampleDraft, temperature=stage.temperature)
        provenance = Provenance(
            teacher=stage.teacher.model,
            prompt=self.prompt_digest,
            index=number,
            demos=tuple(demos),
            keyword=passage.keyword if passage else None,
            passage=passage.id if passage else None,
            calls=answer.calls,
        )
        if answer.value is None:
            return unusable(stage.name, answer.error, answer.detail, provenance)
        draft = Candidate(answer.value.input.strip(), answer.value.output, "initial", provenance)
        return await verified(draft, stage.verify, task, self.client, stage.name)

    def _passage(self, number: int) -> Passage | None:
        passages = self.study.passages
        return passages[number % len(passages)] if passages else None


def count_reasons(rejected: list[Rejected]) -> list[tuple[str, int]]:
    """Reasons with their counts, the most frequent first."""
    return Counter(candidate.reason for candidate in rejected).most_common()
