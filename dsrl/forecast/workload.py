"""The workload of a stage before it runs: requests, tokens and arithmetic still to be done."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dsrl.forecast import defaults
from dsrl.forecast.estimate import ALL, NOTHING, Range

if TYPE_CHECKING:
    from dsrl.data.model import Sampling
    from dsrl.llm import Endpoint, ReplyCache
    from dsrl.pipeline.state import PipelineState
    from dsrl.pipeline.store import Manifest

CHARACTERS_PER_TOKEN = 3.6
"""For English prose and JSON with the tokenizers of current models; measured if there are cached replies."""


@dataclass(frozen=True)
class CachedUsage:
    """Replies for an unfinished stage that are in the cache and won't be paid for again."""

    completions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "CachedUsage") -> "CachedUsage":
        return CachedUsage(
            self.completions + other.completions,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __mul__(self, by: int) -> "CachedUsage":
        return CachedUsage(self.completions * by, self.input_tokens * by, self.output_tokens * by)


@dataclass(frozen=True)
class Workload:
    """What a stage has still to do: requests that cost money, and arithmetic that takes GPU time."""

    endpoint: "Endpoint | None" = None
    """Where requests go; None if the stage sends none."""
    role: str = "teacher"
    """The ledger's role for the requests."""
    requests: Range = NOTHING
    input_tokens: Range = NOTHING
    output_tokens: Range = NOTHING
    cached: CachedUsage = CachedUsage()
    flops: Range | None = NOTHING
    """Floating-point operations of rollouts and trainings; None if the model's size is unknown."""
    seconds: Range | None = NOTHING
    """Time spent waiting for the endpoint; None if unknown, as with a batch API that takes up to a day."""
    basis: str = ""
    """Source of the figures."""

    def usd(self) -> Range | None:
        """Dollars, at the batch API's price if it is used; None if the price is unknown."""
        price = self.endpoint.price if self.endpoint else None
        if price is None:
            return None if self.endpoint and self.requests.high else NOTHING
        usd = self.input_tokens * (price.input / 1e6) + self.output_tokens * (price.output / 1e6)
        return usd * price.batch if self.endpoint and self.endpoint.batch else usd

    def batch_usd(self) -> Range | None:
        """Dollars if everything went through the batch API; None if there is none or the price is unknown."""
        usd, endpoint = self.usd(), self.endpoint
        if usd is None or endpoint is None or endpoint.price is None or not endpoint.takes_batch:
            return None
        return usd if endpoint.batch else usd * endpoint.price.batch

    def __add__(self, other: "Workload") -> "Workload":
        """Add another part of the same stage's work, such as a further round."""
        return dataclasses.replace(
            self,
            endpoint=self.endpoint or other.endpoint,
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached=self.cached + other.cached,
            flops=add_known([self.flops, other.flops]),
            seconds=add_known([self.seconds, other.seconds]),
            basis=self.basis or other.basis,
        )


def add_known(parts: Sequence[Range | None]) -> Range | None:
    """The sum; None if a part is unknown."""
    known = [part for part in parts if part is not None]
    return sum(known, NOTHING) if len(known) == len(parts) else None


@dataclass(frozen=True)
class ForecastState:
    """What is known, or expected, before a stage runs. Stages read it and return the one for the next stage."""

    state: "PipelineState"
    """As far as known from stored stages and cached replies."""
    reply_cache: "ReplyCache | None" = None
    """Read only; None if there are no replies yet."""
    made: Sequence["Manifest"] = ()
    """Store entries of earlier runs, oldest first."""
    keys: "dict[str, str | None]" = field(default_factory=dict)
    """Name of an input -> its key; None if not known yet."""
    whole: bool = False
    """Whether `state.samples` is all that there will be."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """Sample id -> how many samples it stands for, if only some candidates were looked up; 1 if absent."""
    samples: Range = NOTHING
    """Expected number of samples."""
    selected: Range = NOTHING
    """Expected number of those trained on."""
    trains: bool = True
    """Whether there will be a trained model."""
    parameters: float | None = None
    """Size of the base model in billions; None if unknown."""
    limit: int | None = None
    """Candidates of a stage that are looked up in the cache, as a sample of the others; None: all."""
    latency: float | None = None
    """Measured seconds per request to the teacher."""

    def forecast(self, workload: Workload | None = None, **changes: Any) -> "StageForecast":
        """A stage's forecast: its workload, and this state with some values changed."""
        return StageForecast(workload, dataclasses.replace(self, **changes))

    def question_tokens(self) -> Range:
        """Length of an input, from the known samples or else from the demos."""
        texts = [sample.input for sample in self.state.samples] or [demo.input for demo in self.state.task.demos]
        if not texts:
            return defaults.QUESTION_TOKENS
        spread = Range(0.9, 1.0, 1.1) if self.state.samples else Range(0.6, 1.0, 2.0)
        return spread * (sum(map(len, texts)) / len(texts) / CHARACTERS_PER_TOKEN)

    def prompt_tokens(self) -> Range:
        """Length of an input with the output instruction."""
        return self.question_tokens() + Range.of(count_tokens(self.state.task.output_instruction))

    def teacher_reply_tokens(self) -> Range:
        """Length of a worked answer."""
        outputs = [demo.output for demo in self.state.task.demos]
        if not outputs:
            return defaults.REPLY_TOKENS
        return defaults.REPLY_PER_DEMO * (sum(map(count_tokens, outputs)) / len(outputs))

    def earlier(self, stage: str, **same: str) -> list["Manifest"]:
        """Store entries of a stage whose inputs have these keys, oldest first."""
        return [
            made
            for made in self.made
            if made.stage == stage and all(made.parents.get(need) == key for need, key in same.items())
        ]

    def rollout_tokens(self, most: int) -> Range:
        """Length of a base model's reply, measured in earlier runs or assumed."""
        measured = self._rollout_length()
        usual = defaults.ROLLOUT_TOKENS if measured is None else Range(0.8, 1.0, 1.25) * measured
        return usual.within(most=most)

    def _rollout_length(self) -> float | None:
        """Mean tokens of the base model's replies in earlier runs."""
        base = self.keys.get("base")
        asked = [made.calls.get("model") or {} for made in self.made if base in made.parents.values()] if base else []
        completions: int = sum(counts.get("completions") or 0 for counts in asked)
        written: int = sum(counts.get("output_tokens") or 0 for counts in asked)
        return written / completions if completions else None

    def flops(self, read: Range, written: Range, per_token: float = 2.0) -> Range | None:
        """Operations for so many tokens: two per parameter and token to read or sample it, six to learn from it."""
        return None if self.parameters is None else (read + written) * (per_token * self.parameters * 1e9)

    def waiting(self, endpoint: "Endpoint", requests: Range) -> Range | None:
        """Seconds until the endpoint has answered, with as many requests in flight as it allows."""
        if endpoint.batch:
            return None
        assumed = defaults.SECONDS_PER_REQUEST + self.teacher_reply_tokens() * defaults.SECONDS_PER_TOKEN
        latency = assumed if self.latency is None else Range(0.6, 1.0, 2.0) * self.latency
        seconds = requests * latency * (1 / endpoint.concurrency)
        at_limit = requests * (60 / endpoint.requests_per_minute) if endpoint.requests_per_minute else NOTHING
        return Range(*map(max, seconds.plain().values(), at_limit.plain().values()))

    def rollouts(
        self,
        rollout: Any,
        prompts: Range,
        sampling: "Sampling",
        count: int,
        inputs: Sequence[str] = (),
        share: Range = ALL,
    ) -> Workload:
        """`count` replies of the base model to a share of the prompts; `inputs` are the known ones among them."""
        cached = self._cached_rollouts(rollout, sampling, count, inputs)
        missing = prompts * (share + Range.of(-cached.completions / max(1.0, prompts.expected * count))).within()
        read, written = missing * self.prompt_tokens(), missing * count * self.rollout_tokens(sampling.max_tokens)
        endpoint = rollout.served_by
        basis = "assumptions" if self._rollout_length() is None else "earlier replies of this model"
        workload = Workload(role="model", cached=cached, basis=basis)
        if endpoint is None:
            return dataclasses.replace(workload, flops=self.flops(read * count, written))
        requests = missing * (1 if endpoint.takes_n else count)
        return dataclasses.replace(
            workload,
            endpoint=endpoint,
            requests=requests,
            input_tokens=read if endpoint.takes_n else read * count,
            output_tokens=written,
            seconds=self.waiting(endpoint, requests),
        )

    def _cached_rollouts(self, rollout: Any, sampling: "Sampling", count: int, inputs: Sequence[str]) -> CachedUsage:
        """Cached replies to known inputs: to all of them, or to a few that stand for the others."""
        model = self.state.base
        if self.reply_cache is None or model is None or not model.is_made() or not inputs:
            return CachedUsage()
        step = max(1, len(inputs) // (self.limit or len(inputs) or 1))
        prompts = [self.state.task.prompt(text) for text in inputs[::step]]
        found: CachedUsage = rollout.cached_replies(model.locate(), prompts, sampling, count, self.reply_cache)
        return found * step


@dataclass(frozen=True)
class StageForecast:
    """A stage's forecast of its own run."""

    workload: Workload | None
    """None: the stage can't tell."""
    after: ForecastState


@runtime_checkable
class ForecastsWorkload(Protocol):
    """A stage that can forecast its own work."""

    def forecast(self, before: ForecastState) -> StageForecast:
        """The stage's work and results, from what is known before it runs, without sending a request."""


def count_tokens(text: str) -> float:
    """A rough count without a tokenizer."""
    return len(text) / CHARACTERS_PER_TOKEN
