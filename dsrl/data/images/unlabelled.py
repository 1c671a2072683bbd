"""Images without labels, about which a teacher writes questions."""

from pathlib import Path
from typing import Any

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.digest import digest, file_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.fields import lookup
from dsrl.data.images.columns import flatten_cell, image_file_digests, image_path, read_image
from dsrl.data.images.preprocess import UnusableImage
from dsrl.data.images.store import Gallery, map_in_threads
from dsrl.data.readers import SUFFIXES, read_hub_dataset, read_rows
from dsrl.data.sample import Image

IMAGE_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".jfif",
    ".jp2",
    ".ppm",
    ".pgm",
}


@component("data.unlabelled_images")
class UnlabelledImages(Component):
    """A folder of images, subfolders included; or a column of a data set."""

    path: str = ""
    """A folder, a data file or a Hugging Face data set id; empty: no images."""
    column: str = "image"
    """Image column of a data set."""
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    limit: int | None = Field(default=None, gt=0)
    """Use only the first images."""

    @property
    def folder(self) -> Path | None:
        """The folder, if `path` names one."""
        path = resource(self.path)
        return path if self.path and path.is_dir() else None

    def key_fields(self) -> dict[str, Any]:
        """Local images enter the key by content, hub data sets by id and revision."""
        return {**super().key_fields(), "path": self._content_key()}

    def check(self) -> None:
        """Raises `UserError` if there are no images to be found."""
        if self.folder is not None and not self._files():
            raise UserError("task.pictures: no images in this folder", got=self.path, allowed=sorted(IMAGE_SUFFIXES))
        if self.path.startswith(("/", ".", "~")) and not resource(self.path).exists():
            raise UserError(
                "task.pictures: no such file or folder", got=self.path, next_step="check task.pictures.path"
            )

    def images(self, gallery: Gallery) -> list[Image | UnusableImage]:
        """Store all images; one that can't be used gives its exception."""

        def store(cell: Any) -> Image | UnusableImage:
            try:
                return gallery.put(read_image(cell, None))
            except UnusableImage as fault:
                return fault

        return list(map_in_threads(store, self._cells()))

    def _files(self) -> list[Path]:
        assert self.folder is not None
        paths = (path for path in self.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        return sorted(paths)[: self.limit]

    def _cells(self) -> list[Any]:
        if self.folder is not None:
            return [str(path) for path in self._files()]
        local = resource(self.path)
        is_file = local.suffix in SUFFIXES
        rows = read_rows(local) if is_file else read_hub_dataset(self.path, self.config, self.split, self.revision)
        cells = [image for row in rows for image in flatten_cell(lookup(row, self.column))][: self.limit]
        return [str(path) if is_file and (path := image_path(cell, local.parent)) else cell for cell in cells]

    def _content_key(self) -> str:
        if self.folder is not None:
            return digest(image_file_digests(self._files()))
        local = resource(self.path)
        return file_digest(local) if local.is_file() else f"{self.path}@{self.revision}"
