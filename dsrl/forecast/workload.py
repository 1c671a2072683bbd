"""What a run is expected to ask for, before it asks: the words in which stages foretell their own work."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dsrl.core.estimate import ALL, NOTHING, Range
from dsrl.forecast import defaults

if TYPE_CHECKING:
    from dsrl.data.model import Sampling
    from dsrl.llm import Endpoint, ReplyCache
    from dsrl.pipeline.state import PipelineState
    from dsrl.pipeline.store import Manifest

CHARACTERS_PER_TOKEN = 3.6
"""Of English prose and JSON with the tokenizers of current models; measured instead where replies are in the store."""


@dataclass(frozen=True)
class Held:
    """What the calls store already holds of a stage that isn't finished: paid for, and not paid for again."""

    completions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Held") -> "Held":
        return Held(
            self.completions + other.completions,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __mul__(self, by: int) -> "Held":
        return Held(self.completions * by, self.input_tokens * by, self.output_tokens * by)


@dataclass(frozen=True)
class Load:
    """What a stage will still ask for: calls that cost money, and arithmetic that costs GPU time."""

    endpoint: "Endpoint | None" = None
    """Who is asked; None: nobody outside of this machine."""
    role: str = "teacher"
    """Under which the ledger books the calls."""
    requests: Range = NOTHING
    input_tokens: Range = NOTHING
    output_tokens: Range = NOTHING
    held: Held = Held()
    flops: Range | None = NOTHING
    """Floating-point operations of rollouts and trainings; None: unknown, because the model's size is."""
    seconds: Range | None = NOTHING
    """Spent waiting for the endpoint; None: unknown, as with a batch API that takes up to a day."""
    basis: str = ""
    """What the figures come from."""

    def usd(self) -> Range | None:
        """Dollars, by the batch API if that is how it will be asked; None where the price is unknown."""
        price = self.endpoint.price if self.endpoint else None
        if price is None:
            return None if self.endpoint and self.requests.high else NOTHING
        usd = self.input_tokens * (price.input / 1e6) + self.output_tokens * (price.output / 1e6)
        return usd * price.batch if self.endpoint and self.endpoint.batch else usd

    def batch_usd(self) -> Range | None:
        """Dollars if everything went through the batch API; None where there is none or the price is unknown."""
        usd, endpoint = self.usd(), self.endpoint
        if usd is None or endpoint is None or endpoint.price is None or not endpoint.takes_batch:
            return None
        return usd if endpoint.batch else usd * endpoint.price.batch

    def __add__(self, other: "Load") -> "Load":
        """Two parts of one stage's work, such as two rounds of it."""
        return dataclasses.replace(
            self,
            endpoint=self.endpoint or other.endpoint,
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            held=self.held + other.held,
            flops=_sum(self.flops, other.flops),
            seconds=_sum(self.seconds, other.seconds),
            basis=self.basis or other.basis,
        )


def _sum(one: Range | None, other: Range | None) -> Range | None:
    """Unknown as soon as one part is."""
    return None if one is None or other is None else one + other


@dataclass(frozen=True)
class Outlook:
    """What is known when a stage is foretold. Stages look, and hand on what they will leave behind."""

    state: "PipelineState"
    """As far as it is known without asking anybody: out of stored stages and stored replies."""
    calls: "ReplyCache | None" = None
    """To be read only; None: there are no replies yet."""
    made: Sequence["Manifest"] = ()
    """Entries of earlier runs, oldest first."""
    keys: "dict[str, str | None]" = field(default_factory=dict)
    """What is needed -> the key that makes it; None where it can't be known yet."""
    whole: bool = False
    """Whether `state.samples` is all that there will be."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """Id of a known sample -> how many it stands for, where not all were looked up; others stand for themselves."""
    samples: Range = NOTHING
    """How many samples there will be."""
    selected: Range = NOTHING
    """How many of them are trained on."""
    trains: bool = True
    """Whether there will be a trained model."""
    parameters: float | None = None
    """Billions, of the base model; None: unknown."""
    limit: int | None = None
    """Candidates of a stage that are looked up in the store; the others are taken to be like them. None: all."""
    latency: float | None = None
    """Seconds that a request to the teacher takes, where that was measured."""

    def expects(self, load: Load | None = None, **changes: Any) -> "Expectation":
        """The answer of `Stage.expect`: the load, and this outlook with some values changed."""
        return Expectation(load, dataclasses.replace(self, **changes))

    def question_tokens(self) -> Range:
        """Of an input: that of the samples that are known, else that of the demos."""
        texts = [sample.input for sample in self.state.samples] or [demo.input for demo in self.state.task.demos]
        if not texts:
            return defaults.QUESTION_TOKENS
        spread = Range(0.9, 1.0, 1.1) if self.state.samples else Range(0.6, 1.0, 2.0)
        return spread * (sum(map(len, texts)) / len(texts) / CHARACTERS_PER_TOKEN)

    def prompt_tokens(self) -> Range:
        """Of an input with the output instruction, as models are asked."""
        return self.question_tokens() + Range.of(tokens(self.state.task.output_instruction))

    def teacher_reply_tokens(self) -> Range:
        """Of a worked answer."""
        outputs = [demo.output for demo in self.state.task.demos]
        if not outputs:
            return defaults.REPLY_TOKENS
        return defaults.REPLY_PER_DEMO * (sum(map(tokens, outputs)) / len(outputs))

    def earlier(self, stage: str, **same: str) -> list["Manifest"]:
        """Entries of a stage whose parents have these keys, the latest last."""
        return [
            made
            for made in self.made
            if made.stage == stage and all(made.parents.get(need) == key for need, key in same.items())
        ]

    def rollout_tokens(self, most: int) -> Range:
        """Of a base model's reply: measured where it was asked before, else assumed."""
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

    def forward(self, read: Range, written: Range, factor: float = 2.0) -> Range | None:
        """Operations for so many tokens: two a parameter and token to read or to draw it, six to learn from it."""
        return None if self.parameters is None else (read + written) * (factor * self.parameters * 1e9)

    def waiting(self, endpoint: "Endpoint", requests: Range) -> Range | None:
        """Seconds until the endpoint has answered so many requests, as many at a time as it takes."""
        if endpoint.batch:
            return None
        assumed = defaults.SECONDS_PER_REQUEST + self.teacher_reply_tokens() * defaults.SECONDS_PER_TOKEN
        latency = assumed if self.latency is None else Range(0.6, 1.0, 2.0) * self.latency
        seconds = requests * latency * (1 / endpoint.concurrency)
        ceiling = requests * (60 / endpoint.requests_per_minute) if endpoint.requests_per_minute else NOTHING
        return Range(*map(max, seconds.plain().values(), ceiling.plain().values()))

    def rollouts(
        self,
        rollout: Any,
        prompts: Range,
        sampling: "Sampling",
        count: int,
        inputs: Sequence[str] = (),
        share: Range = ALL,
    ) -> Load:
        """`count` replies of the base model to each of so many prompts, or a share of these; `inputs` are the prompts
        that are known."""
        held = self._drawn(rollout, sampling, count, inputs)
        stored = held.completions / max(1.0, prompts.expected * count)
        left = prompts * (share + Range.of(-stored)).within()
        read, written = left * self.prompt_tokens(), left * count * self.rollout_tokens(sampling.max_tokens)
        endpoint = rollout.served_by
        load = Load(role="model", held=held, basis=self._rollout_basis())
        if endpoint is None:
            return dataclasses.replace(load, flops=self.forward(read * count, written))
        requests = left * (1 if endpoint.takes_n else count)
        return dataclasses.replace(
            load,
            endpoint=endpoint,
            requests=requests,
            input_tokens=read if endpoint.takes_n else read * count,
            output_tokens=written,
            seconds=self.waiting(endpoint, requests),
        )

    def _drawn(self, rollout: Any, sampling: "Sampling", count: int, inputs: Sequence[str]) -> Held:
        """Replies to known inputs that are in the store already: all of them, or a few and what these stand for."""
        model = self.state.base
        if self.calls is None or model is None or not model.is_made() or not inputs:
            return Held()
        step = max(1, len(inputs) // (self.limit or len(inputs) or 1))
        prompts = [self.state.task.prompt(text) for text in inputs[::step]]
        found: Held = rollout.cached_replies(model.locate(), prompts, sampling, count, self.calls)
        return found * step

    def _rollout_basis(self) -> str:
        return "assumptions" if self._rollout_length() is None else "earlier replies of this model"


@dataclass(frozen=True)
class Expectation:
    """What a stage says of itself before it runs."""

    load: Load | None
    """None: it can't say."""
    after: Outlook


@runtime_checkable
class Forecastable(Protocol):
    """A stage that can forecast its own work."""

    def expect(self, outlook: Outlook) -> Expectation:
        """What it will ask for and leave behind, from what is known before it runs, without sending a request."""


def tokens(text: str) -> float:
    """A rough count, where no tokenizer is at hand."""
    return len(text) / CHARACTERS_PER_TOKEN
