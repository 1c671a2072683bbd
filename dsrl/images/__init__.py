"""Pictures of samples and test items: made fit once, kept by their content, shown to models in one way."""

from dsrl.images.pixels import Pixels, Unfit
from dsrl.images.pool import Pool
from dsrl.images.prompt import (
    IMAGE,
    Illustrated,
    Prompt,
    content,
    illustrated,
    images_of,
    marked,
    numbered,
    shown_first,
    spoken,
    text_of,
)
from dsrl.images.store import Gallery, ImageStore

__all__ = [
    "IMAGE",
    "Gallery",
    "Illustrated",
    "ImageStore",
    "Pixels",
    "Pool",
    "Prompt",
    "Unfit",
    "content",
    "illustrated",
    "images_of",
    "marked",
    "numbered",
    "shown_first",
    "spoken",
    "text_of",
]
