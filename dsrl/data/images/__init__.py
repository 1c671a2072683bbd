"""Pictures of samples and test items: made fit once, kept by their content, shown to models in one way."""

from dsrl.data.images.preprocess import Pixels, Unfit
from dsrl.data.images.prompt import (
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
from dsrl.data.images.store import Gallery, ImageStore
from dsrl.data.images.unlabelled import UnlabelledImages

__all__ = [
    "IMAGE",
    "Gallery",
    "Illustrated",
    "ImageStore",
    "Pixels",
    "Prompt",
    "Unfit",
    "UnlabelledImages",
    "content",
    "illustrated",
    "images_of",
    "marked",
    "numbered",
    "shown_first",
    "spoken",
    "text_of",
]
