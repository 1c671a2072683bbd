"""The cost of a candidate from cached replies, an earlier run or assumptions; the remaining workload of a stage."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsrl.core.component import Component, component
from dsrl.data.sample import Provenance, Rejected, Sample, new_sample
from dsrl.forecast import defaults
from dsrl.forecast.estimate import NOTHING, Range, mean, share
from dsrl.forecast.offline_clients import SimulatedClient
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, ForecastState, Workload
from dsrl.graders import Grader
from dsrl.llm import Endpoint
from dsrl.pipeline.store import Manifest
from dsrl.stages.generate.candidate import Candidate, Verifier, run_verifiers
from dsrl.stages.generate.dry_run import DryRun

MIN_CANDIDATES = 4
"""Complete candidates from which on their means are used."""
SAME_TASK, OTHER_TASK = Range(0.85, 1.0, 1.15), Range(0.5, 1.0, 2.0)
"""Uncertainty of an earlier run's means."""
NUM_SIMULATED = 24
"""Simulated candidates at each level of agreement."""


@dataclass(frozen=True)
class CandidateCost:
    """The cost of one candidate from its draft to its last vote."""

    requests: Range
    input_tokens: Range
    """Without the first prompt."""
    output_tokens: Range
    usable: Range
    """Probability of being accepted."""
    basis: str


def estimate_cost(
    stage: str,
    endpoint: Endpoint,
    verify: Sequence[Verifier],
    dry_run: DryRun,
    before: ForecastState,
    drafts: int = 1,
) -> CandidateCost:
    """The cost of a candidate with so many drafts, from the best source there is."""
    return (
        _cost_from_cache(dry_run)
        or _cost_from_earlier_run(stage, endpoint, verify, dry_run.prompt_tokens(), before)
        or _simulated_cost(endpoint, verify, before, drafts)
    )


def _cost_from_cache(dry_run: DryRun) -> CandidateCost | None:
    """Means of the complete candidates; None if they are too few."""
    usages = [candidate.usage for candidate in dry_run.complete]
    if len(usages) < MIN_CANDIDATES:
        return None
    return CandidateCost(
        requests=mean(usage.requests for usage in usages),
        input_tokens=mean(usage.input_tokens - usage.prompt_tokens for usage in usages),
        output_tokens=mean(usage.output_tokens for usage in usages),
        usable=share(len(dry_run.accepted), len(usages), defaults.USABLE.expected),
        basis=f"{len(usages)} candidates in the store",
    )


def _cost_from_earlier_run(
    stage: str, endpoint: Endpoint, verify: Sequence[Verifier], prompt: float, before: ForecastState
) -> CandidateCost | None:
    """Means of an earlier run with this teacher and these verifiers, preferably of the same task."""
    definition = before.keys.get("definition")
    checks = [verifier.key_fields() for verifier in verify if isinstance(verifier, Component)]
    same = before.earlier(stage, definition=definition) if definition else []
    for entries, uncertainty in ((same, SAME_TASK), (before.earlier(stage), OTHER_TASK)):
        for entry in reversed(entries):
            fields = entry.parts["stage"]
            if fields.get("teacher") == endpoint.key_fields() and fields.get("verify") == checks:
                cost = _cost_from_entry(entry.calls.get("teacher") or {}, *_num_tried(entry), prompt, uncertainty)
                if cost is not None:
                    return cost
    return None


def _num_tried(entry: Manifest) -> tuple[int, int]:
    """Candidates tried and accepted."""
    asked = entry.figures.get("asked")
    if asked:
        return sum(asked.values()), sum(entry.figures[way] for way in asked)
    return entry.rows.get("in", 0), entry.rows.get("out", 0)


def _cost_from_entry(
    calls: Mapping[str, int], tried: int, accepted: int, prompt: float, uncertainty: Range
) -> CandidateCost | None:
    """None if most replies came from the cache: how many requests they took isn't known."""
    paid, hits = calls.get("completions", 0), calls.get("hit_completions", calls.get("store_hits", 0))
    if not tried or not paid or hits > paid:
        return None
    read, written = (calls[name] + calls.get(f"hit_{name}", 0) for name in ("input_tokens", "output_tokens"))
    return CandidateCost(
        requests=uncertainty * (calls["requests"] / paid * (paid + hits) / tried),
        input_tokens=uncertainty * max(0.0, read / tried - prompt),
        output_tokens=uncertainty * (written / tried),
        usable=share(accepted, tried, accepted / tried),
        basis="an earlier run",
    )


def _simulated_cost(
    endpoint: Endpoint, verify: Sequence[Verifier], before: ForecastState, drafts: int
) -> CandidateCost:
    """Requests of the verifiers with simulated votes; lengths from the demos or assumptions."""
    easy, usual, hard = (asyncio.run(_simulate(endpoint, verify, before, each)) for each in defaults.AGREEMENT)
    requests, completions, _ = (Range(*sorted(values)) for values in zip(easy, usual, hard, strict=True))
    reply = before.teacher_reply_tokens()
    return CandidateCost(
        requests=requests + Range.of(float(drafts)),
        input_tokens=(requests + Range.of(drafts - 1.0)) * before.prompt_tokens(),
        output_tokens=completions * reply + (before.question_tokens() + reply) * float(drafts),
        usable=defaults.USABLE * Range(hard[2], usual[2], 1.0),
        basis="assumptions",
    )


async def _simulate(
    endpoint: Endpoint, verify: Sequence[Verifier], before: ForecastState, agreement: Sequence[float]
) -> tuple[float, float, float]:
    """Requests, completions and share accepted, as means over simulated candidates."""
    task = dataclasses.replace(before.state.task, answer=DigitGrader())
    draft = Candidate("an input", "0", "initial", Provenance())
    requests, completions, accepted = 0, 0, 0
    for number in range(NUM_SIMULATED):
        client = SimulatedClient(endpoint, agreement[number % len(agreement)], seed=number)
        outcome = await run_verifiers(draft, verify, task, client, "simulated") if verify else None
        requests, completions = requests + client.usage.requests, completions + client.usage.completions
        accepted += not isinstance(outcome, Rejected)
    return requests / NUM_SIMULATED, completions / NUM_SIMULATED, accepted / NUM_SIMULATED


@component("graders.placeholder")
class DigitGrader(Grader):
    """Reads the simulated teacher's answers."""

    @property
    def instruction(self) -> str:
        return "one digit"

    def parse(self, reply: str) -> str | None:
        return reply

    def parse_anywhere(self, reply: str) -> str | None:
        return reply


def placeholder_sample(before: ForecastState) -> Sample:
    """A sample of the expected length, for stages whose input isn't known yet."""
    lengths = (before.question_tokens(), before.teacher_reply_tokens())
    text, solution = ("x" * round(length.expected * CHARACTERS_PER_TOKEN) for length in lengths)
    return new_sample(before.state.task.name, text, "0", "initial", solution=solution)


def remaining_workload(
    endpoint: Endpoint, dry_run: DryRun, cost: CandidateCost, candidates: Range, before: ForecastState
) -> Workload:
    """What `candidates` more cost, including the incomplete ones, whose cached replies are subtracted."""
    begun = dry_run.incomplete
    requests = _subtract(candidates * cost.requests, sum(each.usage.requests * each.weight for each in begun))
    input_tokens = candidates * (cost.input_tokens + Range.of(dry_run.prompt_tokens()))
    return Workload(
        endpoint=endpoint,
        requests=requests,
        input_tokens=_subtract(input_tokens, sum(each.usage.input_tokens * each.weight for each in begun)),
        output_tokens=_subtract(
            candidates * cost.output_tokens, sum(each.usage.output_tokens * each.weight for each in begun)
        ),
        cached=dry_run.cached,
        seconds=before.waiting(endpoint, requests),
        basis=cost.basis,
    )


def _subtract(total: Range, cached: int) -> Range:
    return (total + Range.of(-float(cached))).within(0.0) if total.high else NOTHING
