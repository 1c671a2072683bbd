"""What stages need of a model's replies: a rollout engine that generates them, and a counter of correct ones."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from dsrl.core.component import Component
from dsrl.data.images.prompt import Prompt
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Image, Rate
from dsrl.forecast.workload import CachedUsage
from dsrl.llm import Price
from dsrl.llm.request import Call

if TYPE_CHECKING:
    from dsrl.llm import Endpoint, ReplyCache
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

FREE = Price(input=0.0, output=0.0, date="2026-11-20")
"""The price of replies that this machine generates itself."""


class RolloutSession(Protocol):
    """Generates replies; an engine is a session of its own if it needs no set-up."""

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]: ...


class Rollout(Component, ABC):
    """A rollout engine: generates replies of a model to task prompts."""

    needs_weights: ClassVar[bool] = False
    """Whether the model's weights must be on this machine."""

    @abstractmethod
    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies per prompt, in order. Reply i depends only on (model, prompt, sampling, seed, i)."""

    def session(self, model: Model, context: "Context") -> AbstractContextManager[RolloutSession]:  # noqa: ARG002
        """Keeps what the engine sets up for a model, such as a server, across several `generate` calls."""
        return nullcontext(self)

    def cached_replies(
        self,
        model: Model,  # noqa: ARG002
        prompts: Sequence[Prompt],  # noqa: ARG002
        sampling: Sampling,  # noqa: ARG002
        count: int,  # noqa: ARG002
        cache: "ReplyCache",  # noqa: ARG002
    ) -> CachedUsage:
        """For forecasts: how many of these replies are cached, and their tokens. `model` is a located one."""
        return CachedUsage()

    @property
    def served_by(self) -> "Endpoint | None":
        """The endpoint whose replies may cost money. None: this machine generates them."""
        return None


@dataclass(frozen=True)
class Question:
    """A question whose answer is known."""

    text: str
    answer: str
    images: tuple[Image, ...] = ()
    num_consumed: int = 0
    """Replies that earlier decisions have used: the count is made of those that follow, and so is fresh."""


@runtime_checkable
class PassCounter(Protocol):
    """Counts correct replies, as `dsrl.stages.score.PassCount` does."""

    rollouts: int
    """Replies that make a complete count."""

    def count(
        self,
        questions: Sequence[Question],
        state: "PipelineState",
        context: "Context",
        model: Model | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> list[Rate]:
        """One rate per question, of `model` or else of the state's base model.

        A count with fewer than `rollouts` valid replies is incomplete: nothing may be concluded from it. With `names`,
        the ids of the samples, the graded replies become the stage's side table `rollouts.parquet`.
        """


def count_cached(calls: Sequence[Call], count: int, cache: "ReplyCache") -> CachedUsage:
    """How many of the first `count` completions of each call are cached, and their tokens."""
    replies = (cache.get(call.digest, index) for call in calls for index in range(count))
    usages = [reply.usage for reply in replies if reply is not None]
    return CachedUsage(
        len(usages), sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages)
    )
