"""The columns of a data set that hold pictures, read row by row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsrl.data.fields import lookup
from dsrl.data.images import decode
from dsrl.data.images.preprocess import Unfit, opened
from dsrl.data.images.store import Gallery, side_by_side
from dsrl.data.sample import Image

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """No names: the data set has no pictures."""

    names: tuple[str, ...]
    root: Path | None
    """Where relative paths begin."""

    def cells(self, row: Row) -> list[Any]:
        """The pictures of a row, one by one and unread."""
        return [one for name in self.names for one in decode.listed(lookup(row, name))]

    def pictures(self, row: Row, gallery: Gallery) -> tuple[Image, ...]:
        """The pictures of a row, kept. Raises `Unfit` for one that can't be shown."""
        return tuple(gallery.put(decode.read(cell, self.root)) for cell in self.cells(row))

    def kept(self, rows: Iterable[Row], gallery: Gallery) -> list[tuple[Image, ...] | Unfit]:
        """Those of all rows, several rows at a time; in the place of some that can't be shown, why."""
        return list(side_by_side(lambda row: self._kept(row, gallery), rows))

    def fault(self, row: Row) -> str | None:
        """What is wrong with the pictures of a row, in words; None where all can be opened."""
        try:
            for cell in self.cells(row):
                opened(decode.read(cell, self.root))
        except Unfit as fault:
            return f"{fault.reason}: {fault}"
        return None

    def files(self, rows: Sequence[Row]) -> list[Path]:
        """All files that rows name, in order; cells may hold pictures themselves."""
        found = (decode.file(cell, self.root) for row in rows for cell in self.cells(row))
        return list(dict.fromkeys(path for path in found if path is not None))

    def _kept(self, row: Row, gallery: Gallery) -> tuple[Image, ...] | Unfit:
        try:
            return self.pictures(row, gallery)
        except Unfit as fault:
            return fault
