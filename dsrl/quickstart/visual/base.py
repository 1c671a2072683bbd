"""The recipe of the visual quickstart's base model."""

from typing import ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.quickstart.base import Recipe


@component("quickstart.visual_pretrain")
class VisualPretrain(Recipe):
    """A tiny LLaVA trained from scratch on pictures of coloured shapes in about a minute, and stopped while it is still
    unsure: an eye that has learned to tell the shapes apart, and a language model that learns to use it.

    Every answer that it learns from is right. It answers in three styles and has not decided on one of them.
    """

    module: ClassVar[str] = "dsrl.quickstart.visual.pretrain"
    training: ClassVar[str] = "dsrl.quickstart.visual.training"
    kept_as: ClassVar[str] = "quickstart-visual"
    sources: ClassVar[tuple[str, ...]] = (
        "tokens.py", "train_until_fit.py", "visual/base_model_checks.py", "visual/documents.py", "visual/model.py",
        "visual/pictures.py",
        "visual/questions.py", "visual/testset.py", "visual/tokens.py", "visual/training.py",
    )  # fmt: skip

    seed: int = 0
    """Of the weights and of the pictures it sees."""
    eye_steps: int = Field(default=100, gt=0)
    """Steps in which the eye alone learns what stands at each place of a picture."""
    steps: int = Field(default=600, gt=0)
    """Optimizer steps over which the learning rate falls; training may end before or after."""
    batch: int = Field(default=32, gt=0)
    """Pictures a step, each a new one."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of AdamW: warmed up over 30 steps, then falling in a line to a twentieth."""
    named: float = Field(default=0.3, ge=0, le=1)
    """Share of what it reads that only names the colours or kinds on a picture; the rest is questions."""
    worked: float = Field(default=0.4, ge=0, le=1)
    """Share of answers that look at every place and end with `#### 3`."""
    bare: float = Field(default=0.3, ge=0, le=1)
    """Share of answers as `#### 3` alone; the rest reads "There are 3."."""
    hidden: int = Field(default=96, gt=0, multiple_of=32)
    """Width of the language model; heads are 32 wide."""
    layers: int = Field(default=2, gt=0)
    """Its transformer blocks."""
    eye: int = Field(default=64, gt=0, multiple_of=32)
    """Width of the vision tower, which has one block."""
    first_look: int = Field(default=300, gt=0)
    """Step at which the gate is tried first."""
    look_every: int = Field(default=50, gt=0)
    """Steps between two looks."""
    last_look: int = Field(default=600, gt=0)
    """Step at which training ends all the same, or fails if the pass rate is out of its bounds."""
    min_worked: float = Field(default=0.6, ge=0, le=1)
    """The gate, at temperature 1 on 240 validation pictures: so many worked answers are right, ..."""
    min_gap: float = Field(default=0.1, ge=-1, le=1)
    """by this much more than bare ones, so that there is a better style to find, ..."""
    min_accuracy: float = Field(default=0.25, ge=0, le=1)
    """and pass@1 lies between this ..."""
    max_accuracy: float = Field(default=0.65, ge=0, le=1)
    """... and this, so that pass rates spread and something is left to learn."""
