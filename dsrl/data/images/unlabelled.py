"""Pictures without labels, which a teacher writes questions about."""

from pathlib import Path
from typing import Any

from pydantic import Field

from dsrl.core.component import Component, component
from dsrl.core.digest import digest, file_digest
from dsrl.core.errors import UserError
from dsrl.core.resources import resource
from dsrl.data.fields import lookup
from dsrl.data.images import decode
from dsrl.data.images.digest_cache import known_digests
from dsrl.data.images.preprocess import Unfit
from dsrl.data.images.store import Gallery, side_by_side
from dsrl.data.readers import SUFFIXES, hub_rows, read_rows
from dsrl.data.sample import Image

SUFFIX = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@component("data.unlabelled_images")
class UnlabelledImages(Component):
    """A folder of pictures, with those in folders below it; or a column of a data set."""

    path: str = ""
    """A folder, a data file or a Hugging Face data set id; empty: there is none."""
    column: str = "image"
    """Of a data set: the column that holds pictures."""
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    limit: int | None = Field(default=None, gt=0)
    """Only the first so many."""

    @property
    def folder(self) -> Path | None:
        """The folder, if `path` names one."""
        found = resource(self.path)
        return found if self.path and found.is_dir() else None

    def key_fields(self) -> dict[str, Any]:
        """By content; of the hub, by id and revision."""
        return {**super().key_fields(), "path": self._content()}

    def check(self) -> None:
        """Raises `UserError` where there are no pictures to be found."""
        local = resource(self.path)
        if self.folder is not None and not self._files():
            raise UserError("task.pictures: no picture in this folder", got=self.path, allowed=sorted(SUFFIX))
        if self.path.startswith(("/", ".", "~")) and not local.exists():
            raise UserError(
                "task.pictures: no such file or folder", got=self.path, next_step="check task.pictures.path"
            )

    def images(self, gallery: Gallery) -> list[Image | Unfit]:
        """All of them, kept; in the place of one that can't be shown, why."""

        def kept(one: Any) -> Image | Unfit:
            try:
                return gallery.put(decode.read(one, None))
            except Unfit as fault:
                return fault

        return list(side_by_side(kept, self._cells()))

    def _files(self) -> list[Path]:
        assert self.folder is not None
        return sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in SUFFIX)[: self.limit]

    def _cells(self) -> list[Any]:
        if self.folder is not None:
            return [str(path) for path in self._files()]
        local = resource(self.path)
        is_file = local.suffix in SUFFIXES
        rows = read_rows(local) if is_file else hub_rows(self.path, self.config, self.split, self.revision)
        found = [one for row in rows for one in decode.listed(lookup(row, self.column))][: self.limit]
        return [
            str(decode.file(one, local.parent) or "") if is_file and decode.file(one, None) else one for one in found
        ]

    def _content(self) -> str:
        if self.folder is not None:
            return digest(known_digests(self._files()))
        local = resource(self.path)
        return file_digest(local) if local.is_file() else f"{self.path}@{self.revision}"
