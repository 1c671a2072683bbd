"""The embedded indexes in a store: which are complete, what they contain, which one can be extended."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dsrl.core.digest import digest
from dsrl.pipeline.store import write_json
from dsrl.stages.retrieve.corpus import Corpus
from dsrl.stages.retrieve.ingest.records import Ingest, IngestReport

VERSION = 4
"""Raised when the analyzer or the fields change: indexes of another version are rebuilt."""
COMPLETE = "complete.json"
"""Written last: the content of the index, and the size of every file."""
SEEN = "seen.sqlite"
"""The texts in the index, for deduplicating corpora that are added later."""


@dataclass(frozen=True)
class IndexSpec:
    """The corpora of an index and how they are read."""

    corpora: tuple[Corpus, ...]
    ingest: Ingest

    def key_fields(self) -> dict[str, Any]:
        """Everything that can change a search result."""
        return {
            "version": VERSION,
            # without the patch level: only other releases of tantivy may write other files
            "library": version("tantivy").rpartition(".")[0],
            "ingest": self.ingest.key_fields(),
            "corpora": [corpus.key_fields() for corpus in self.corpora],
        }

    @property
    def key(self) -> str:
        return digest(self.key_fields())

    @property
    def names(self) -> str:
        return ", ".join(corpus.name for corpus in self.corpora)


@dataclass(frozen=True)
class BuiltIndex:
    """A complete index on disk."""

    folder: Path
    key_fields: dict[str, Any]
    """Those of its `IndexSpec`."""
    num_pieces: int
    report: IngestReport

    @property
    def corpus_names(self) -> list[str]:
        return [corpus[0] for corpus in self.key_fields["corpora"]]


def load_index(folder: Path) -> BuiltIndex | str | None:
    """The index in a folder; a description of the damage if it is damaged; None if there is no such folder."""
    if not folder.is_dir():
        return None
    try:
        values = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        for name, size in values["files"].items():
            if (folder / name).stat().st_size != size:
                return f"the size of {name} has changed"
        if "holds" not in values:
            return "it was built by an older version"
        return BuiltIndex(folder, values["holds"], values["documents"], IngestReport.from_json(values["report"]))
    except OSError as error:
        return f"{Path(error.filename).name} can't be read ({error.strerror})"
    except (ValueError, KeyError, TypeError) as error:
        return f"{COMPLETE} can't be read ({type(error).__name__}: {error})"


def mark_complete(folder: Path, spec: IndexSpec, num_pieces: int, report: IngestReport) -> None:
    """Write `complete.json`, without which a folder doesn't count as an index."""
    files = {path.name: path.stat().st_size for path in folder.iterdir() if not path.name.startswith(".tantivy")}
    values = {"documents": num_pieces, "holds": spec.key_fields(), "report": asdict(report), "files": files}
    write_json(folder / COMPLETE, values)


def list_indexes(root: Path) -> Iterator[tuple[Path, BuiltIndex | str]]:
    """Every index under a root, complete or damaged; those under construction are left out."""
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        index = load_index(folder)
        if index is not None:
            yield folder, index


def outdated_by(root: Path, spec: IndexSpec) -> str | None:
    """How an index of the same corpora, built by another version, differs; None if there is no such index."""
    wanted = spec.key_fields()
    for _, index in list_indexes(root):
        if isinstance(index, str) or index.key_fields["corpora"] != wanted["corpora"]:
            continue
        for part in ("version", "library"):
            if index.key_fields[part] != wanted[part]:
                return f"{part} {index.key_fields[part]}, now {wanted[part]}"
    return None


def find_extendable(root: Path, spec: IndexSpec) -> BuiltIndex | None:
    """The largest index of the first corpora of `spec`, in this order and with the same options.

    Adding the other corpora to it gives the same results as indexing all of them together.
    """
    wanted = spec.key_fields()
    candidates = []
    for folder, index in list_indexes(root):
        if isinstance(index, str) or not (folder / SEEN).is_file():
            continue
        corpora = index.key_fields["corpora"]
        expected = {**wanted, "corpora": wanted["corpora"][: len(corpora)]}
        if len(corpora) < len(wanted["corpora"]) and index.key_fields == expected:
            candidates.append(index)
    return max(candidates, key=lambda index: len(index.corpus_names), default=None)
