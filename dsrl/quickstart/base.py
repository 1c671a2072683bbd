"""Recipes of the quickstarts' base models, and the cache of the trained models."""

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
"""More threads don't make training a model of this size faster."""


@component(None)
class Recipe(Component):
    """A tiny model trained from scratch on first use, in a child process, and kept in the cache.

    Training stops at the first validation that passes: worked answers are right often enough, clearly more often than
    bare ones, and pass@1 is neither so low that there is nothing to start from nor so high that nothing is left to
    learn.
    """

    module: ClassVar[str]
    """The program that trains it."""
    training: ClassVar[str]
    """The module with `pretrain(recipe, out)`; only this module imports torch."""
    folder_name: ClassVar[str]
    """Name of its folder in the cache, without the key."""
    sources: ClassVar[tuple[str, ...]]
    """Files beside this one whose bytes are part of the key: with other code it is another model."""

    seed: int = 0
    """Seed of the weights and of the corpus."""
    steps: int = Field(default=1000, gt=0)
    """Optimizer steps over which the learning rate decays; training may end before or after."""
    batch: int = Field(default=32, gt=0)
    """Documents per step, each a new one."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate of AdamW: linear warm-up, then linear decay to a twentieth."""
    worked: float = Field(default=0.4, ge=0, le=1)
    """Share of answers with the steps written out before `#### 11`."""
    bare: float = Field(default=0.25, ge=0, le=1)
    """Share of answers that are `#### 11` alone; the rest are sentences."""
    hidden: int = Field(default=96, gt=0, multiple_of=32)
    """Hidden size; attention heads are 32 wide."""
    layers: int = Field(default=2, gt=0)
    """Transformer blocks."""
    first_look: int = Field(default=700, gt=0)
    """Step of the first validation."""
    look_every: int = Field(default=50, gt=0)
    """Steps between validations."""
    last_look: int = Field(default=1000, gt=0)
    """Step at which training ends in any case; it fails if pass@1 is out of bounds then."""
    min_worked: float = Field(default=0.7, ge=0, le=1)
    """Minimum accuracy of worked answers on validation questions, at temperature 1."""
    min_gap: float = Field(default=0.15, ge=-1, le=1)
    """Minimum accuracy of worked answers minus that of bare ones."""
    min_accuracy: float = Field(default=0.3, ge=0, le=1)
    """Minimum pass@1."""
    max_accuracy: float = Field(default=0.6, ge=0, le=1)
    """Maximum pass@1."""

    def folder(self) -> Path:
        """The model's folder in the cache; trains it in a child process on first use."""
        folder = self._cache_folder()
        if not folder.is_dir():
            self._train(folder)
        return folder

    def is_made(self) -> bool:
        return self._cache_folder().is_dir()

    def _cache_folder(self) -> Path:
        return cache() / "models" / f"{self.folder_name}-{self.key()}"

    def key(self) -> str:
        """Twelve hex digits that depend on the recipe and on the code in `sources`."""
        here = Path(__file__).parent
        return digest([self.key_fields(), [file_digest(here / name) for name in self.sources]])[:12]

    def arguments(self) -> list[str]:
        """The recipe as command-line options of `module`."""
        return [f"--{field.name.replace('_', '-')}={getattr(self, field.name)}" for field in dataclasses.fields(self)]

    def _train(self, folder: Path) -> None:
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
                "training the quickstart's base model failed",
                got=f"{child_process.end_in_words(code)}; the log ends with\n{child_process.tail(log)}",
                next_step=f"see {log}; to train it by hand: python -m {self.module} {' '.join(arguments)}",
            )


@component("quickstart.pretrain")
class Pretrain(Recipe):
    """A tiny Llama trained from scratch on counting stories in about a minute, and stopped while it is undecided.

    Every text that it learns from is right. It answers in three styles without preferring one; that, and sums that it
    has not practised enough, is what reinforcement learning improves.
    """

    module: ClassVar[str] = "dsrl.quickstart.pretrain"
    training: ClassVar[str] = "dsrl.quickstart.training"
    folder_name: ClassVar[str] = "quickstart"
    sources: ClassVar[tuple[str, ...]] = (
        "base_model_checks.py", "documents.py", "stories.py", "testset.py", "tokens.py", "training.py",
    )  # fmt: skip

    prompt_loss: float = Field(default=0.02, ge=0)
    """Weight of a prompt's tokens in the loss; the answer's tokens weigh 1."""
