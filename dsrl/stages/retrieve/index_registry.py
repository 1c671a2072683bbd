"""The indexes under a store: which are whole, which were begun, and which one can be gone on from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dsrl.core.digest import digest
from dsrl.pipeline.store import write_json
from dsrl.stages.retrieve.corpus import Corpus
from dsrl.stages.retrieve.ingest.options import Ingest
from dsrl.stages.retrieve.ingest.records import IngestReport

VERSION = 4
"""Raised when the analyzer or the fields change: indexes of another version are built anew."""
COMPLETE = "complete.json"
"""Written last: what is in the index, and the size of every file."""
DIGESTS = "digests.bin"
"""All texts in the index, for those that are added later."""


@dataclass(frozen=True)
class Wanted:
    """What an index is to hold."""

    corpora: tuple[Corpus, ...]
    ingest: Ingest

    def key_fields(self) -> dict[str, Any]:
        """Everything that decides what is found in it, and in which order."""
        return {
            "version": VERSION,
            "library": library(),
            "ingest": self.ingest.key_fields(),
            "corpora": [corpus.key_fields() for corpus in self.corpora],
        }

    @property
    def key(self) -> str:
        return digest(self.key_fields())


@dataclass(frozen=True)
class Index:
    """A whole index on disk."""

    folder: Path
    holds: dict[str, Any]
    """The identity of what was wanted."""
    documents: int
    """Pieces that are searched."""
    report: IngestReport
    """How they were read."""

    @property
    def names(self) -> list[str]:
        """Of its corpora, in order."""
        return [corpus[0] for corpus in self.holds["corpora"]]


def library() -> str:
    """Release of the search library without its patch level: another one may write other files."""
    return version("tantivy").rpartition(".")[0]


def found(folder: Path) -> Index | str | None:
    """The index in a folder; in words what is wrong with it; None where there is none."""
    if not folder.is_dir():
        return None
    try:
        values = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        for name, size in values["files"].items():
            if (folder / name).stat().st_size != size:
                return f"{name} has changed its length"
        if "holds" not in values:
            return "it was made by an older version"
        return Index(folder, values["holds"], values["documents"], IngestReport.of(values["report"]))
    except OSError as error:
        return f"{Path(error.filename).name} can't be read ({error.strerror})"
    except (ValueError, KeyError, TypeError) as error:
        return f"{COMPLETE} can't be read ({type(error).__name__}: {error})"


def finish(folder: Path, wanted: Wanted, documents: int, report: IngestReport) -> None:
    """Say that the index in a folder is whole."""
    files = {path.name: path.stat().st_size for path in folder.iterdir() if not path.name.startswith(".tantivy")}
    values = {"documents": documents, "holds": wanted.key_fields(), "report": asdict(report), "files": files}
    write_json(folder / COMPLETE, values)


def all_of(root: Path) -> Iterator[tuple[Path, Index | str]]:
    """Every index under a root, whole or not, those that are being made apart."""
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        index = found(folder)
        if index is not None:
            yield folder, index


def older(root: Path, wanted: Wanted) -> str | None:
    """What distinguishes an index of the same corpora that an older version made; None where there is none."""
    identity = wanted.key_fields()
    for _, index in all_of(root):
        if isinstance(index, str) or index.holds["corpora"] != identity["corpora"]:
            continue
        for part in ("version", "library"):
            if index.holds[part] != identity[part]:
                return f"{part} {index.holds[part]}, now {identity[part]}"
    return None


def beginning(root: Path, wanted: Wanted) -> Index | None:
    """The largest whole index of the first ones of the corpora, in this order: the others can be added to it, and what
    comes out is the same as if all had been indexed together."""
    identity = wanted.key_fields()
    corpora = identity.pop("corpora")
    fitting = [
        index
        for _, index in all_of(root)
        if isinstance(index, Index) and _starts(corpora, index.holds, identity) and (index.folder / DIGESTS).is_file()
    ]
    return max(fitting, key=lambda index: len(index.names), default=None)


def _starts(corpora: Sequence[Any], holds: dict[str, Any], rest: dict[str, Any]) -> bool:
    inside = holds["corpora"]
    same = all(holds[name] == value for name, value in rest.items())
    return same and len(inside) < len(corpora) and list(corpora[: len(inside)]) == inside
