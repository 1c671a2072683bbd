"""How often a model reaches a known answer: what scoring offers and rewriting asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from dsrl.data.model import Model
from dsrl.data.sample import Image, Rate

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import Study


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
        study: "Study",
        context: "Context",
        model: Model | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> list[Rate]:
        """One rate for each question, of the study's base model or of `model`. A count with fewer than `rollouts`
        valid replies is incomplete: nothing may be concluded from it. With `names`, the ids of the samples, the graded
        replies become the stage's side table `rollouts.parquet`."""
