"""Difficulty: solved samples rewritten harder, unsolved ones easier, each verified anew (paper, section 3.3)."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dsrl import prompts
from dsrl.digest import digest, text_digest
from dsrl.generate.candidate import Candidate, SampleDraft, Verifier, unusable, verified
from dsrl.generate.loop import Harvest, accept_until
from dsrl.llm import Endpoint
from dsrl.part import Many, part
from dsrl.sample import Provenance, Rejected, Sample
from dsrl.stage import Stage
from dsrl.study import Study

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.llm import Client

Direction = Literal["harder", "easier"]


@part
class Rewrite(Stage):
    """One rewrite a sample; the samples themselves stay in the pool."""

    name: ClassVar[str] = "rewrite"
    needs: ClassVar[tuple[str, ...]] = ("definition", "samples", "probe")
    adds: ClassVar[tuple[str, ...]] = ("samples",)
    templates: ClassVar[tuple[str, ...]] = ("rewrite",)

    teacher: Endpoint
    direction: Literal["both", "harder", "easier", "none"] = "both"
    """Which rewrites are made: of the solved samples, of the unsolved ones, of both, or none."""
    temperature: float = Field(default=0.7, ge=0)
    verify: Many[Verifier] = ()
    seed: int = 0

    def __call__(self, study: Study, context: "Context") -> Study:
        return asyncio.run(self._rewrite(study, context))

    async def _rewrite(self, study: Study, context: "Context") -> Study:
        work = [(sample, way) for sample in study.samples if (way := self._way(sample)) is not None]
        harvest = Harvest(self.name, {text_digest(sample.input) for sample in study.samples})
        async with context.connect(self.teacher, "teacher") as client:

            async def attempt(number: int) -> Sample | Rejected:
                return await self._attempt(*work[number], study, client)

            with context.progress.task("rewrite", len(work)) as shown:
                # One more is wanted than there are, so that every sample gets its try.
                window = 2 * self.teacher.concurrency
                await accept_until(len(work) + 1, len(work), window, attempt, harvest, shown)
        samples = (*study.samples, *harvest.accepted)
        return study.add(samples=samples, rejected=tuple(harvest.rejected), figures=self._figures(study, work, harvest))

    def _way(self, sample: Sample) -> Direction | None:
        """Solved samples get harder, unsolved ones easier; one that the model never answered is left alone."""
        if sample.probe is None or sample.probe.value is None:
            return None
        way: Direction = "harder" if sample.probe.value == 1.0 else "easier"
        return way if self.direction in ("both", way) else None

    async def _attempt(self, sample: Sample, way: Direction, study: Study, client: "Client") -> Sample | Rejected:
        prompt = prompts.render(
            "rewrite",
            task=study.task,
            pattern=None,
            demos=(),
            direction=way,
            input=sample.input,
            answer=sample.solution or sample.answer,
        )
        messages = [{"role": "user", "content": prompt}]
        answer = await client.ask(messages, SampleDraft, temperature=self.temperature)
        provenance = Provenance(
            teacher=self.teacher.model,
            prompt=digest(prompts.source("rewrite")),
            calls=answer.calls,
            keyword=sample.provenance.keyword,
            passage=sample.provenance.passage,
            demos=(),
        )
        if answer.value is None:
            return unusable(self.name, answer.error, answer.detail, provenance, sample)
        draft = Candidate(answer.value.input.strip(), answer.value.output, way, provenance, sample)
        return await verified(draft, self.verify, study.task, client, self.name)

    def _figures(self, study: Study, work: list[tuple[Sample, Direction]], harvest: Harvest) -> dict[str, object]:
        asked = Counter(way for _, way in work)
        made = Counter(sample.origin for sample in harvest.accepted)
        return {
            "rows": {"in": len(study.samples), "out": len(study.samples) + len(harvest.accepted)},
            "harder": made["harder"],
            "easier": made["easier"],
            "asked": {"harder": asked["harder"], "easier": asked["easier"]},
        }
