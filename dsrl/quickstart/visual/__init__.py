"""The quickstart with pictures: coloured shapes to count, a reader that looks at pixels, a tiny model that sees."""

from dsrl.quickstart.visual.base import VisualPretrain

__all__ = ["VisualPretrain"]
