"""How often a model reaches a known answer: what scoring offers and rewriting asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dsrl.data.images.prompt import Prompt
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Image, Rate

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState


@dataclass(frozen=True)
class Asked:
    """A question whose answer is known."""

    question: str
    answer: str
    images: tuple[Image, ...] = ()
    drawn: int = 0
    """Replies that were looked at before: the count is made of those that follow, and so is fresh."""


@runtime_checkable
class PassCounter(Protocol):
    """Counts right replies: `score.PassCount`."""

    rollouts: int
    """Replies that a complete count is made of."""

    def count(
        self,
        asked: Sequence[Asked],
        state: "PipelineState",
        context: "Context",
        model: Model | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> list[Rate]:
        """One rate for each question, of the state's base model or of `model`. A count with fewer than `rollouts`
        valid replies is incomplete: nothing may be concluded from it. With `names`, the ids of the samples, the graded
        replies become the stage's side table `rollouts.parquet`."""


@runtime_checkable
class Rollout(Protocol):
    """A rollout engine: draws replies of a model to task prompts."""

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: "Context"
    ) -> list[list[Reply]]:
        """`count` replies to each prompt, in order. Reply i depends only on (model, prompt, sampling, seed, i)."""
