"""When a quickstart's base model has learned enough, and not too much."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from dsrl.core.errors import UserError


class Trainer(Protocol):
    """Whatever makes one update after another."""

    step: int

    def train(self, steps: int) -> None: ...


class Looked(Protocol):
    """What a look at the model has shown."""

    def faults(self, recipe: Any) -> list[str]: ...

    def unfit(self, recipe: Any) -> list[str]: ...


Found = TypeVar("Found", bound=Looked)


def until_fit(trainer: Trainer, recipe: Any, look: Callable[[], Found]) -> Found:
    """Train until the gate opens, or to the last look; what that one has shown. Raises `UserError` if the pass rate is
    unfit by then."""
    trainer.train(recipe.first_look)
    measured = look()
    while faults := measured.faults(recipe):
        print(f"step {trainer.step:5d}  {measured}: {'; '.join(faults)}", flush=True)
        if trainer.step >= recipe.last_look and not measured.unfit(recipe):
            break
        if trainer.step >= recipe.last_look:
            raise UserError(
                f"the base model is not fit for use after {trainer.step} steps",
                got="; ".join(faults),
                next_step="try another seed: model.prepare.seed=...",
            )
        trainer.train(recipe.look_every)
        measured = look()
    print(f"step {trainer.step:5d}  {measured}: trained far enough", flush=True)
    return measured
