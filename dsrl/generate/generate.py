"""New samples: pattern, a few demos and one passage in, a verified sample out (paper, section 3.1)."""

import asyncio
import dataclasses
import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from dsrl import priors, prompts
from dsrl.digest import digest
from dsrl.errors import StageFailed
from dsrl.estimate import Range
from dsrl.forecast import CHARACTERS_PER_TOKEN, Expectation, Load, Outlook
from dsrl.generate.candidate import Candidate, SampleDraft, Verifier, check_verifiers, unusable, verified
from dsrl.generate.costs import foretold, load
from dsrl.generate.loop import Harvest, Patience, accept_until, hopeless
from dsrl.generate.near import Near
from dsrl.generate.rehearsal import Rehearsal, longest_gap, rehearse, spread
from dsrl.llm import Endpoint
from dsrl.llm.dry import DryClient, UnpaidError
from dsrl.llm.structured.answer import TEMPLATES, usable
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
    templates: ClassVar[tuple[str, ...]] = ("pattern", "generate", *TEMPLATES)
    speed: ClassVar[frozenset[str]] = frozenset({"min_yield", "max_repeats"})

    teacher: Endpoint
    n: int = Field(ge=1)
    max_candidates: int | None = Field(default=None, ge=1)
    """Give up after so many candidates; None: four times `n`."""
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail once fewer than this share of a hundred candidates or more is accepted; 0: never."""
    max_repeats: int | None = Field(default=50, ge=1)
    """Fail after so many duplicates in a row; None: never."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Leave out candidates of which so large a share of word triples is that of an accepted one (Jaccard similarity,
    estimated by MinHash); None: only equal inputs."""
    pattern: bool = True
    """Have the teacher describe the demos in general words first, and show that with every prompt."""
    demos_per_prompt: int = Field(default=3, ge=0)
    temperature: float = Field(default=0.7, ge=0)
    verify: Many[Verifier] = ()
    """Verifiers, asked in this order."""
    seed: int = 0

    def check(self) -> None:
        check_verifiers(self.name, self.verify)

    def __call__(self, study: Study, context: "Context") -> Study:
        return asyncio.run(self._generate(study, context))

    async def _generate(self, study: Study, context: "Context") -> Study:
        most = self.max_candidates or 4 * self.n
        patience, near = Patience(self.min_yield, self.max_repeats), Near(self.near_duplicates)
        harvest = Harvest(self.name, patience=patience, near=near)
        async with context.connect(self.teacher, "teacher") as client:
            pattern = await self._pattern(study, client)
            writer = Writer(self, study, client, pattern, near)
            with context.progress.task("generate", self.n) as shown:
                await accept_until(self.n, most, self.teacher.window, writer.attempt, harvest, shown)
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
        answer = await usable(client.ask, [{"role": "user", "content": prompt}], Pattern, temperature=0.0)
        if answer.value is None:
            raise StageFailed(
                "generate: the teacher gave no pattern of the demos", got=f"{answer.error}: {answer.detail}"
            )
        return answer.value.pattern

    def pilot(self, count: int) -> "Generate":
        """The first candidates are those of the whole run, so their replies are too."""
        return dataclasses.replace(self, n=min(count, self.n))

    def expect(self, outlook: Outlook) -> Expectation:
        rehearsal, asked = asyncio.run(self._rehearsed(outlook))
        each = foretold(self.name, self.teacher, self.verify, rehearsal, outlook)
        missing = Range.of(max(0, self.n - rehearsal.num_accepted))
        most = (self.max_candidates or 4 * self.n) - rehearsal.num_whole
        candidates = (missing / each.usable).within(0.0, most)
        made = Range.of(rehearsal.num_accepted) + candidates * each.usable
        return outlook.expects(
            asked + load(self.teacher, rehearsal, each, candidates, outlook),
            study=outlook.study.add(samples=tuple(rehearsal.accepted)),
            samples=made.within(most=self.n),
            whole=len(rehearsal.accepted) == self.n,
            weights=rehearsal.weights,
        )

    async def _rehearsed(self, outlook: Outlook) -> tuple[Rehearsal, Load]:
        """Candidates on the replies that are there, and what is still to be paid for the pattern."""
        pattern, asked = await self._foretold_pattern(outlook)
        calls = None if asked.requests.high else outlook.calls  # every prompt holds the pattern
        rehearsal = Rehearsal(near=Near(self.near_duplicates))

        async def attempt(number: int, client: DryClient) -> Sample | Rejected:
            return await Writer(self, outlook.study, client, pattern, rehearsal.near).attempt(number)

        for number, weight in itertools.chain(spread(self.n, outlook.limit), self._further(outlook.limit)):
            if rehearsal.hopeful >= self.n:
                break
            rehearsal.add(await rehearse(self.teacher, calls, number, attempt, weight))
            if rehearsal.empty_in_a_row >= longest_gap(self.teacher):
                break
        return rehearsal, asked

    def _further(self, limit: int | None) -> Iterator[tuple[int, int]]:
        """Candidates beyond the first n, which take the place of rejected ones."""
        most = self.max_candidates or 4 * self.n
        last = most if limit is None else min(most, self.n + limit // 2)
        return ((number, 1) for number in range(self.n, last))

    async def _foretold_pattern(self, outlook: Outlook) -> tuple[str | None, Load]:
        """The pattern if it is in the store, else one of usual length and what it costs to ask for it."""
        client = DryClient(self.teacher, outlook.calls)
        try:
            pattern = await self._pattern(outlook.study, client)
            return pattern, Load(self.teacher, held=client.tally.held)
        except UnpaidError:
            written = priors.PATTERN_TOKENS
            read = Range.of(client.tally.prompt_characters / CHARACTERS_PER_TOKEN)
            text = "x" * round(written.expected * CHARACTERS_PER_TOKEN)
            return text, Load(self.teacher, requests=Range.of(1), input_tokens=read, output_tokens=written)

    def _check(self, harvest: Harvest, most: int, context: "Context") -> None:
        """Too few is said; none at all, or a teacher who has nothing more to give, is a failure."""
        accepted = len(harvest.accepted)
        if harvest.lost:
            cure = "raise generate.temperature, or give more passages or demos"
            if accepted:
                dials = f"generate.min_yield=0 generate.max_repeats=null generate.max_candidates={harvest.settled}"
                cure += f"; {dials} goes on with the {accepted} there are"
            raise hopeless(harvest, self.n, cure)
        if accepted == self.n:
            return
        text = f"generate: {accepted} of {self.n} samples after {most} candidates ({harvest.reasons_text})"
        if not accepted:
            raise StageFailed(
                text, got=harvest.example, next_step="change the task or the teacher, or raise generate.max_candidates"
            )
        context.progress.warn(text)


class Writer:
    """Makes candidate i out of the task, its demos and passage i."""

    def __init__(self, stage: Generate, study: Study, client: "Client", pattern: str | None, near: Near) -> None:
        self.stage, self.study, self.client, self.pattern, self.near = stage, study, client, pattern, near
        self.prompt_digest = digest(prompts.source("generate"))

    async def attempt(self, number: int) -> Sample | Rejected:
        """Write one candidate and put it before the verifiers."""
        stage, task = self.stage, self.study.task
        rng = random.Random(digest([stage.seed, "candidate", number]))
        demos = sorted(rng.sample(range(len(task.demos)), min(stage.demos_per_prompt, len(task.demos))))
        passage = self._passage(number)
        prompt = prompts.render(
            "generate",
            task=task.turn(number),
            pattern=self.pattern,
            demos=[task.demos[place] for place in demos],
            passage=passage.text if passage else None,
            index=number,
        )
        messages = [{"role": "user", "content": prompt}]
        answer = await self.client.ask(messages, SampleDraft, index=stage.seed, temperature=stage.temperature)
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
        draft = Candidate(answer.value.input, answer.value.output, "initial", provenance)
        if refused := self.near.refusal(stage.name, draft.input, None, provenance):
            return refused
        return await verified(draft, stage.verify, task, self.client, stage.name)

    def _passage(self, number: int) -> Passage | None:
        passages = self.study.passages
        return passages[number % len(passages)] if passages else None
