"""What all generators share: setup calls, then candidates in the order of their numbers until `n` are accepted."""

import asyncio
import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dsrl.core.component import Many, component
from dsrl.core.digest import digest
from dsrl.core.errors import StageFailed
from dsrl.data.images.preprocess import UnusableImage
from dsrl.data.sample import Image, Rejected, Sample
from dsrl.data.task import Task
from dsrl.forecast.estimate import Range
from dsrl.forecast.offline_clients import CacheOnlyClient, NotCachedError
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, ForecastState, StageForecast, Workload
from dsrl.llm import Endpoint
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.stages.generate.accept_until import OrderedResults, StopRule, accept_until
from dsrl.stages.generate.candidate import DraftPrompt, Verifier, check_verifiers, draft_and_verify
from dsrl.stages.generate.dry_run import DryRun, max_gap, spread, try_candidate
from dsrl.stages.generate.duplicates import DuplicateFilter, NoveltyTest
from dsrl.stages.generate.forecast import estimate_cost, remaining_workload

if TYPE_CHECKING:
    from dsrl.llm import Client
    from dsrl.pipeline.context import Context


@dataclass(frozen=True)
class GenerationInputs:
    """What candidates are generated from."""

    state: PipelineState
    client: "Client"
    shared: Any
    """Built from the setup calls, once for all candidates."""
    duplicates: DuplicateFilter
    accepted_before: Callable[[int], Awaitable[Sequence[Sample]]]
    """The accepted samples among the candidates below a number, once all of these are resolved."""
    images: Sequence[Image] = ()
    """Candidate i asks about image i, starting over when they run out."""


@component(None)
class TeacherGenerator(Stage):
    """Generates candidates until `n` are accepted. Candidate i depends only on (seed, i), and on earlier accepted ones
    if a subclass shows these.

    A subclass writes the prompt of a candidate (`draft_prompt`) and may make setup calls first. The first of its
    templates is that of the prompt.
    """

    name: ClassVar[str] = "generate"
    outputs = ("samples",)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"min_yield", "max_repeats"})
    place: ClassVar[str] = "generate"
    """Its name in the shipped pipelines, for messages."""
    drafts: ClassVar[int] = 1
    """Requests per candidate before the verifiers run."""

    teacher: Endpoint
    n: int = Field(ge=1)
    max_candidates: int | None = Field(default=None, ge=1)
    """Candidates to try at most. None: four times `n`."""
    min_yield: float = Field(default=0.02, ge=0, lt=1)
    """Fail if fewer than this share of a hundred candidates or more is accepted. 0: never."""
    max_repeats: int | None = Field(default=50, ge=1)
    """Fail after this many duplicates in a row. None: never."""
    near_duplicates: float | None = Field(default=None, gt=0, lt=1)
    """Reject candidates whose word triples are this similar to those of an accepted sample (Jaccard similarity,
    estimated by MinHash). None: only equal inputs are rejected."""
    temperature: float = Field(default=0.7, ge=0)
    verify: Many[Verifier] = ()
    """Verifiers in the order in which they run."""
    seed: int = 0

    @abstractmethod
    async def draft_prompt(self, number: int, inputs: GenerationInputs) -> DraftPrompt | Rejected:
        """The prompt for candidate `number`, or its rejection if a reply that the prompt needs is of no use."""

    def num_setup_calls(self, state: PipelineState) -> int:  # noqa: ARG002
        return 0

    async def setup_call(self, number: int, state: PipelineState, client: "Client") -> Any:  # noqa: ARG002
        """The result of setup call `number`. Raises `StageFailed`."""
        return None

    def build_shared(self, results: Sequence[Any]) -> Any:
        """`GenerationInputs.shared`, from the results of the setup calls."""
        return results[0] if results else None

    def placeholder(self) -> tuple[Any, Range]:
        """For forecasts: a setup result of typical size, and the tokens of its reply."""
        return None, Range.of(0.0)

    def novelty_test(self, state: PipelineState) -> NoveltyTest | None:  # noqa: ARG002
        return None

    def shared_figures(self, shared: Any) -> dict[str, Any]:  # noqa: ARG002
        """Figures about the results of the setup calls, for `metrics.json`."""
        return {}

    @property
    def max_attempts(self) -> int:
        return self.max_candidates or 4 * self.n

    def check(self) -> None:
        check_verifiers(self.place, self.verify)

    def __call__(self, state: PipelineState, context: "Context") -> PipelineState:
        return asyncio.run(self._generate(state, context))

    async def _generate(self, state: PipelineState, context: "Context") -> PipelineState:
        images = await asyncio.to_thread(shuffled_images, state, self.seed, context)
        duplicates = DuplicateFilter(self.near_duplicates, self.novelty_test(state))
        results = OrderedResults(self.name, duplicates, StopRule(self.min_yield, self.max_repeats))
        async with context.connect(self.teacher, "teacher") as client:
            calls = (self.setup_call(number, state, client) for number in range(self.num_setup_calls(state)))
            shared = self.build_shared(await asyncio.gather(*calls))
            inputs = GenerationInputs(state, client, shared, duplicates, results.accepted_before, images)
            with context.progress.task(self.place, self.n) as progress:
                await accept_until(
                    self.n,
                    self.max_attempts,
                    self.teacher.window,
                    lambda number: self.attempt(number, inputs),
                    results,
                    progress,
                )
        self._check_yield(results, context)
        rows = {"in": results.num_resolved, "out": len(results.accepted)}
        return state.add(
            samples=tuple(results.accepted),
            rejected=tuple(results.rejected),
            figures={"rows": rows, **self.shared_figures(shared)},
        )

    async def attempt(self, number: int, inputs: GenerationInputs) -> Sample | Rejected:
        """Generate candidate `number`."""
        prompt = await self.draft_prompt(number, inputs)
        if isinstance(prompt, Rejected):
            return prompt
        if inputs.images:
            prompt = dataclasses.replace(prompt, images=(inputs.images[number % len(inputs.images)],))
        return await draft_and_verify(self, prompt, inputs.state.task, inputs.client, inputs.duplicates)

    def _check_yield(self, results: OrderedResults, context: "Context") -> None:
        """Warn about too few samples. Raises `StageFailed` if there are none or the stop rule ended the stage."""
        accepted = len(results.accepted)
        if results.stop_reason:
            next_step = f"raise {self.place}.temperature, or give more passages or demos"
            if accepted:
                fields = {"min_yield": 0, "max_repeats": "null", "max_candidates": results.num_resolved}
                overrides = " ".join(f"{self.place}.{name}={value}" for name, value in fields.items())
                next_step += f"; {overrides} goes on with the {accepted} there are"
            raise results.failure(self.n, next_step)
        if accepted == self.n:
            return
        reasons = results.describe_reasons()
        text = f"{self.place}: {accepted} of {self.n} samples after {self.max_attempts} candidates ({reasons})"
        if not accepted:
            raise StageFailed(
                text,
                got=results.example(),
                next_step=f"change the task or the teacher, or raise {self.place}.max_candidates",
            )
        context.progress.warn(text)

    @property
    def prompted_endpoint(self) -> Endpoint:
        return self.teacher

    def adds_images(self, task: Task) -> bool:
        return task.pictures is not None

    def shows_images(self, task: Task, *, in_samples: bool) -> bool:  # noqa: ARG002
        return task.pictures is not None

    def pilot(self, count: int) -> "TeacherGenerator":
        """The stage with fewer samples: its candidates are the first of the whole run and send the same requests."""
        return dataclasses.replace(self, n=min(count, self.n))

    def forecast(self, before: ForecastState) -> StageForecast:
        dry_run, asked = asyncio.run(self._dry_run(before))
        cost = estimate_cost(self.name, self.teacher, self.verify, dry_run, before, self.drafts)
        missing = Range.of(max(0, self.n - dry_run.num_accepted))
        candidates = (missing / cost.usable).within(0.0, self.max_attempts - dry_run.num_complete)
        made = Range.of(dry_run.num_accepted) + candidates * cost.usable
        return before.forecast(
            asked + remaining_workload(self.teacher, dry_run, cost, candidates, before),
            state=before.state.add(samples=tuple(dry_run.accepted)),
            samples=made.within(most=self.n),
            whole=len(dry_run.accepted) == self.n,
            weights=dry_run.weights,
        )

    async def _dry_run(self, before: ForecastState) -> tuple[DryRun, Workload]:
        """The dry run of the candidates, and the remaining workload of the setup calls."""
        shared, asked = await self._dry_run_setup(before)
        calls = None if asked.requests.high else before.reply_cache  # every prompt holds what the setup calls bring
        dry_run = DryRun(DuplicateFilter(self.near_duplicates, self.novelty_test(before.state)))

        async def attempt(number: int, client: CacheOnlyClient) -> Sample | Rejected:
            inputs = GenerationInputs(before.state, client, shared, dry_run.duplicates, dry_run.before)
            return await self.attempt(number, inputs)

        for number, weight in itertools.chain(spread(self.n, before.limit), self._further(before.limit)):
            if dry_run.num_possible >= self.n:
                break
            dry_run.add(await try_candidate(self.teacher, calls, number, attempt, weight))
            if dry_run.empty_in_a_row >= max_gap(self.teacher):
                break
        return dry_run, asked

    def _further(self, limit: int | None) -> Iterator[tuple[int, int]]:
        """Candidates beyond the first n, which replace rejected ones."""
        last = self.max_attempts if limit is None else min(self.max_attempts, self.n + limit // 2)
        return ((number, 1) for number in range(self.n, last))

    async def _dry_run_setup(self, before: ForecastState) -> tuple[Any, Workload]:
        """The shared inputs from cached setup calls, with placeholders for the others, and what these will cost."""
        placeholder, written = self.placeholder()
        results, asked = [], Workload(self.teacher)
        for number in range(self.num_setup_calls(before.state)):
            client = CacheOnlyClient(self.teacher, before.reply_cache)
            try:
                results.append(await self.setup_call(number, before.state, client))
                asked += Workload(self.teacher, cached=client.usage.cached)
            except NotCachedError:
                results.append(placeholder)
                read = Range.of(client.usage.prompt_characters / CHARACTERS_PER_TOKEN)
                asked += Workload(self.teacher, requests=Range.of(1), input_tokens=read, output_tokens=written)
        return self.build_shared(results), asked


def shuffled_images(state: PipelineState, seed: int, context: "Context") -> Sequence[Image]:
    """The task's unlabelled images in seeded order, without unusable ones. Raises `StageFailed` if none is usable."""
    if state.task.pictures is None:
        return ()
    loaded = state.task.pictures.images(context.gallery(state.task))
    usable = {image.digest: image for image in loaded if isinstance(image, Image)}
    if faults := [image for image in loaded if isinstance(image, UnusableImage)]:
        message = (
            f"task.pictures: {len(faults)} of {len(loaded)} images are unusable, e.g. {faults[0].reason}: {faults[0]}"
        )
        if not usable:
            raise StageFailed(message, next_step="repair them, or give another task.pictures.path")
        context.progress.warn(message)
    return sorted(usable.values(), key=lambda image: digest([seed, "pictures", image.digest]))
