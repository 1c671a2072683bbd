"""The quickstart's base model: its recipe, and the folder in which it is kept once it has been trained."""

import dataclasses
import sys
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from dsrl.core import child_process
from dsrl.core.component import Component, component
from dsrl.core.digest import digest, file_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import cache

THREADS = 1
"""More don't help a model of this size."""


@component(None)
class Recipe(Component):
    """A tiny model trained from scratch on first use, by a program of its own, and kept in the cache."""

    module: ClassVar[str]
    """The program that trains it."""
    training: ClassVar[str]
    """The module with the function `pretrain` that it calls: the only one that imports torch."""
    kept_as: ClassVar[str]
    """Name of its folder, without the key."""
    sources: ClassVar[tuple[str, ...]]
    """The code that carries the recipe out, beside this file: with other code it is another model."""

    def folder(self) -> Path:
        """The model's folder in the cache; trains it there, in a process of its own, on first use."""
        folder = self._place()
        if not folder.is_dir():
            self._train(folder)
        return folder

    def is_made(self) -> bool:
        """Whether it was trained before."""
        return self._place().is_dir()

    def _place(self) -> Path:
        return cache() / "models" / f"{self.kept_as}-{self.key()}"

    def key(self) -> str:
        """Twelve hex digits of the recipe and of the code that carries it out."""
        here = Path(__file__).parent
        return digest([self.key_fields(), [file_digest(here / name) for name in self.sources]])[:12]

    def arguments(self) -> list[str]:
        """The recipe as options of its program."""
        return [f"--{field.name.replace('_', '-')}={getattr(self, field.name)}" for field in dataclasses.fields(self)]

    def _train(self, folder: Path) -> None:
        """Raises `UserError` with the end of the log where that fails."""
        child_process.require("torch", "transformers")
        log = folder.with_name(f"{folder.name}.log")
        print(f"training the quickstart's base model, about a minute; log: {log}", file=sys.stderr, flush=True)
        arguments = [f"--out={folder}", *self.arguments()]
        process = child_process.start(self.module, arguments, log, threads=THREADS, answers=None)
        try:
            code = process.wait()
        finally:
            process.kill()
            child_process.stop(process)
        if code or not folder.is_dir():
            raise UserError(
                "the quickstart's base model could not be trained",
                got=f"{child_process.end_in_words(code)}; the log ends with\n{child_process.tail(log)}",
                next_step=f"see {log}; by hand: python -m {self.module} {' '.join(arguments)}",
            )


@component("quickstart.pretrain")
class Pretrain(Recipe):
    """A tiny Llama trained from scratch on counting stories in about a minute, and stopped while it is still unsure.

    Every text that it learns from is right. It answers in three styles and has not decided on one of them; that, and
    sums it has not practised enough, is what reinforcement learning has to work on.
    """

    module: ClassVar[str] = "dsrl.quickstart.pretrain"
    training: ClassVar[str] = "dsrl.quickstart.training"
    kept_as: ClassVar[str] = "quickstart"
    sources: ClassVar[tuple[str, ...]] = (
        "base_model_checks.py", "documents.py",
        "stories.py", "testset.py", "tokens.py", "train_until_fit.py", "training.py",
    )  # fmt: skip

    seed: int = 0
    """Of the weights and of the stories it reads."""
    steps: int = Field(default=1000, gt=0)
    """Optimizer steps over which the learning rate falls; training may end before or after."""
    batch: int = Field(default=32, gt=0)
    """Stories a step, each a new one."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of AdamW: warmed up over 50 steps, then falling in a line to a twentieth."""
    prompt_loss: float = Field(default=0.02, ge=0)
    """Weight of a prompt's tokens in the loss; the answer's count 1."""
    worked: float = Field(default=0.40, ge=0, le=1)
    """Share of answers as sums and `#### 11`."""
    bare: float = Field(default=0.25, ge=0, le=1)
    """Share of answers as `#### 11` alone; the rest reads "The answer is 11."."""
    hidden: int = Field(default=96, gt=0, multiple_of=32)
    """Width; heads are 32 wide."""
    layers: int = Field(default=2, gt=0)
    """Transformer blocks."""
    first_look: int = Field(default=700, gt=0)
    """Step at which the gate is tried first."""
    look_every: int = Field(default=50, gt=0)
    """Steps between two looks."""
    last_look: int = Field(default=1000, gt=0)
    """Step at which training ends all the same, or fails if the pass rate is out of its bounds."""
    min_worked: float = Field(default=0.70, ge=0, le=1)
    """The gate, at temperature 1 on 300 validation stories: so many worked answers are right, ..."""
    min_gap: float = Field(default=0.15, ge=-1, le=1)
    """by this much more than bare ones, so that there is a better style to find, ..."""
    min_accuracy: float = Field(default=0.30, ge=0, le=1)
    """and pass@1 lies between this ..."""
    max_accuracy: float = Field(default=0.60, ge=0, le=1)
    """... and this, so that pass rates spread and something is left to learn."""
