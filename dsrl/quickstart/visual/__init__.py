"""The quickstart with images: coloured shapes to count, a teacher that reads pixels, a tiny vision-language model."""

from dsrl.quickstart.visual.base import VisualPretrain

__all__ = ["VisualPretrain"]
