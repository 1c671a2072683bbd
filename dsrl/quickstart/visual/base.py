"""The recipe of the visual quickstart's base model."""

from typing import ClassVar

from pydantic import Field

from dsrl.core.component import component
from dsrl.quickstart.base import Recipe


@component("quickstart.visual_pretrain")
class VisualPretrain(Recipe):
    """A tiny LLaVA trained from scratch on images of coloured shapes in about a minute, and stopped while it is
    undecided: a vision tower that has learned to tell the shapes apart, and a language model that learns to use it.

    Every answer that it learns from is right. It answers in three styles without preferring one.
    """

    module: ClassVar[str] = "dsrl.quickstart.visual.pretrain"
    training: ClassVar[str] = "dsrl.quickstart.visual.training"
    folder_name: ClassVar[str] = "quickstart-visual"
    sources: ClassVar[tuple[str, ...]] = (
        "base_model_checks.py", "testset.py", "tokens.py", "training.py", "visual/documents.py", "visual/questions.py",
        "visual/scenes.py", "visual/testset.py", "visual/tokens.py", "visual/training.py",
    )  # fmt: skip

    eye_steps: int = Field(default=100, gt=0)
    """Steps in which the vision tower alone learns what is in each cell of an image."""
    steps: int = Field(default=600, gt=0)
    named: float = Field(default=0.3, ge=0, le=1)
    """Share of documents that only name the colours or kinds in an image; the rest are questions."""
    bare: float = Field(default=0.3, ge=0, le=1)
    eye: int = Field(default=64, gt=0, multiple_of=32)
    """Hidden size of the vision tower, which has one block."""
    first_look: int = Field(default=300, gt=0)
    last_look: int = Field(default=600, gt=0)
    min_worked: float = Field(default=0.6, ge=0, le=1)
    min_gap: float = Field(default=0.1, ge=-1, le=1)
    min_accuracy: float = Field(default=0.25, ge=0, le=1)
    max_accuracy: float = Field(default=0.65, ge=0, le=1)
