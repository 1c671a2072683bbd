"""Images of samples and test items: preprocessed once, stored by content, shown to all models in the same way."""

from dsrl.data.images.preprocess import Pixels, UnusableImage
from dsrl.data.images.prompt import (
    ImagePrompt,
    Prompt,
    chat_content,
    content_text,
    images_first,
    label_images,
    make_prompt,
    prompt_images,
    prompt_text,
    with_placeholders,
)
from dsrl.data.images.store import Gallery, ImageStore, map_in_threads
from dsrl.data.images.unlabelled import UnlabelledImages
from dsrl.data.sample import IMAGE

__all__ = [
    "IMAGE",
    "Gallery",
    "ImagePrompt",
    "ImageStore",
    "Pixels",
    "Prompt",
    "UnlabelledImages",
    "UnusableImage",
    "chat_content",
    "content_text",
    "images_first",
    "label_images",
    "make_prompt",
    "map_in_threads",
    "prompt_images",
    "prompt_text",
    "with_placeholders",
]
