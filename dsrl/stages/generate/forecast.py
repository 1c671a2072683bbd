"""What one candidate costs: by those in the store, by an earlier run, or by assumption; and what that makes in all."""

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dsrl.core.component import Component, component
from dsrl.core.estimate import NOTHING, Range, mean, share
from dsrl.data.sample import Provenance, Rejected, Sample, new_sample
from dsrl.forecast import defaults
from dsrl.forecast.offline_clients import ImaginedClient
from dsrl.forecast.workload import CHARACTERS_PER_TOKEN, Load, Outlook
from dsrl.graders import Grader
from dsrl.llm import Endpoint
from dsrl.pipeline.store import Manifest
from dsrl.stages.generate.candidate import Candidate, Verifier, run_verifiers
from dsrl.stages.generate.dry_run import Rehearsal

ENOUGH = 4
"""Candidates with all their replies in the store, from which on their means are believed."""
SAME_TASK, OTHER_TASK = Range(0.85, 1.0, 1.15), Range(0.5, 1.0, 2.0)
"""How far an earlier run's means may be off."""
IMAGINED = 24
"""Votes that are played through at each level of agreement."""


@dataclass(frozen=True)
class Each:
    """What one candidate costs from beginning to end; `input_tokens` without its first prompt."""

    requests: Range
    input_tokens: Range
    output_tokens: Range
    usable: Range
    """Chance of being accepted."""
    basis: str


def measured(rehearsal: Rehearsal, assumed: float) -> Each | None:
    """The means of the candidates that are whole, or None where they are too few."""
    tallies = [tried.tally for tried in rehearsal.whole]
    if len(tallies) < ENOUGH:
        return None
    return Each(
        requests=mean(tally.requests for tally in tallies),
        input_tokens=mean(tally.input_tokens - tally.prompt_tokens for tally in tallies),
        output_tokens=mean(tally.output_tokens for tally in tallies),
        usable=share(len(rehearsal.accepted), len(tallies), assumed),
        basis=f"{len(tallies)} candidates in the store",
    )


def foretold(
    stage: str, endpoint: Endpoint, verify: Sequence[Verifier], rehearsal: Rehearsal, look: Outlook, drafts: int = 1
) -> Each:
    """What one candidate of so many drafts costs: by those in the store, else by an earlier run, else by assumption."""
    return (
        measured(rehearsal, defaults.USABLE.expected)
        or remembered(stage, endpoint, verify, rehearsal.prompt_tokens(), look)
        or imagined(endpoint, verify, look, drafts)
    )


def remembered(stage: str, endpoint: Endpoint, verify: Sequence[Verifier], prompt: float, look: Outlook) -> Each | None:
    """The means of an earlier run with this teacher and these votes, of the same task if there is one."""
    definition = look.keys.get("definition")
    same = look.earlier(stage, definition=definition) if definition else []
    for found, doubt in ((same, SAME_TASK), (look.earlier(stage), OTHER_TASK)):
        for made in reversed(found):
            if not _alike(made.parts["stage"], endpoint, verify):
                continue
            if each := _of_manifest(made.calls.get("teacher") or {}, *_flow(made), prompt, doubt):
                return each
    return None


def _alike(identity: dict[str, object], endpoint: Endpoint, verify: Sequence[Verifier]) -> bool:
    checks = [piece.key_fields() for piece in verify if isinstance(piece, Component)]
    return identity.get("teacher") == endpoint.key_fields() and identity.get("verify") == checks


def _flow(made: Manifest) -> tuple[int, int]:
    """Candidates tried and accepted."""
    asked = made.figures.get("asked")
    if asked:
        return sum(asked.values()), sum(made.figures[way] for way in asked)
    return made.rows.get("in", 0), made.rows.get("out", 0)


def _of_manifest(calls: Mapping[str, int], tried: int, accepted: int, prompt: float, doubt: Range) -> Each | None:
    """None where most replies were there before: how many requests had brought them isn't known."""
    paid, found = calls.get("completions", 0), calls.get("hit_completions", calls.get("store_hits", 0))
    if not tried or not paid or found > paid:
        return None
    read, written = (calls[name] + calls.get(f"hit_{name}", 0) for name in ("input_tokens", "output_tokens"))
    return Each(
        requests=doubt * (calls["requests"] / paid * (paid + found) / tried),
        input_tokens=doubt * max(0.0, read / tried - prompt),
        output_tokens=doubt * (written / tried),
        usable=share(accepted, tried, accepted / tried),
        basis="an earlier run",
    )


def imagined(endpoint: Endpoint, verify: Sequence[Verifier], look: Outlook, drafts: int) -> Each:
    """What the verifiers would ask for, played through with made-up votes; lengths from demos or plain assumptions."""
    short, usual, long = (asyncio.run(_play(endpoint, verify, look, agreement)) for agreement in defaults.AGREEMENT)
    requests, completions, _ = (Range(*sorted(of)) for of in zip(short, usual, long, strict=True))
    reply, draft = look.teacher_reply_tokens(), look.question_tokens() + look.teacher_reply_tokens()
    return Each(
        requests=requests + Range.of(float(drafts)),
        input_tokens=(requests + Range.of(drafts - 1.0)) * look.prompt_tokens(),
        output_tokens=completions * reply + draft * float(drafts),
        usable=defaults.USABLE * Range(long[2], usual[2], 1.0),
        basis="assumptions",
    )


async def _play(
    endpoint: Endpoint, verify: Sequence[Verifier], look: Outlook, agreement: Sequence[float]
) -> tuple[float, float, float]:
    """Requests, completions and share of acceptance, means over some imagined candidates."""
    task = dataclasses.replace(look.state.task, answer=Digit())
    draft = Candidate("an input", "0", "initial", Provenance())
    requests, completions, accepted = 0, 0, 0
    for number in range(IMAGINED):
        client = ImaginedClient(endpoint, agreement[number % len(agreement)], seed=number)
        outcome = await run_verifiers(draft, verify, task, client, "imagined") if verify else None
        requests, completions = requests + client.tally.requests, completions + client.tally.completions
        accepted += not isinstance(outcome, Rejected)
    return requests / IMAGINED, completions / IMAGINED, accepted / IMAGINED


def typical(look: Outlook) -> Sample:
    """A sample of the expected length, where none is known yet."""
    lengths = (round(range_.expected * CHARACTERS_PER_TOKEN) for range_ in _lengths(look))
    text, solution = ("x" * length for length in lengths)
    return new_sample(look.state.task.name, text, "0", "initial", solution=solution)


def _lengths(look: Outlook) -> tuple[Range, Range]:
    return look.question_tokens(), look.teacher_reply_tokens()


@component("graders.placeholder")
class Digit(Grader):
    """Reads the imagined teacher's answers."""

    @property
    def instruction(self) -> str:
        return "one digit"

    def parse(self, reply: str) -> str | None:
        return reply

    def parse_anywhere(self, reply: str) -> str | None:
        return reply


def load(endpoint: Endpoint, rehearsal: Rehearsal, each: Each, candidates: Range, look: Outlook) -> Load:
    """What is still to be paid for `candidates` further ones, those that were begun among them."""
    prompt = rehearsal.prompt_tokens()
    partial = [tried.tally.held * tried.weight for tried in rehearsal.parts]
    asked = sum(tried.tally.requests * tried.weight for tried in rehearsal.parts)
    requests = _less(candidates * each.requests, [asked])
    return Load(
        endpoint=endpoint,
        requests=requests,
        input_tokens=_less(
            candidates * (each.input_tokens + Range.of(prompt)), (held.input_tokens for held in partial)
        ),
        output_tokens=_less(candidates * each.output_tokens, (held.output_tokens for held in partial)),
        held=rehearsal.held,
        seconds=look.waiting(endpoint, requests),
        basis=each.basis,
    )


def _less(whole: Range, paid: Iterable[int]) -> Range:
    """What is left of it, and nothing less than nothing."""
    return (whole + Range.of(-float(sum(paid)))).within(0.0) if whole.high else NOTHING
