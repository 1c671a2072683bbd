"""Where passages are searched: `retriever=embedded|none`. A retriever opens a searcher; a searcher answers queries."""

import itertools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from dsrl.part import Many, Part, part
from dsrl.progress import Progress
from dsrl.retrieve.corpus import find_corpus
from dsrl.retrieve.index import Hit, open_index

LOOKED_AT = 50
"""Documents of a corpus whose length is taken for typical."""


class Searcher(Protocol):
    """Answers queries about an index that is open."""

    def search(self, query: str, limit: int) -> list[Hit]:
        """The best hits, best first. Any text is a query; a shorter limit gives the first hits of a longer one."""


class Retriever(Part, ABC):
    """A description of what is searched."""

    def check(self) -> None:
        """Cheap tests before any work starts; raises `UserError`."""

    @abstractmethod
    def open(self, root: Path, progress: Progress) -> Searcher | None:
        """A searcher, its index kept under `root`; None where there is nothing to search."""

    def typical_characters(self, most: int) -> int | None:
        """Length of a passage before any is searched, for a forecast; None where there will be none."""
        return most


@part
class Embedded(Retriever):
    """BM25 over corpora on this machine, in this process."""

    corpora: Many[str] = Field(min_length=1)
    """Names (`corpora/<name>.json`), manifests elsewhere, or bare JSONL files with `id` and `text`."""

    def identity(self) -> dict[str, Any]:
        """Corpora by content, wherever they lie."""
        return {**super().identity(), "corpora": [find_corpus(given).identity() for given in self.corpora]}

    def check(self) -> None:
        for given in self.corpora:
            find_corpus(given).check()

    def typical_characters(self, most: int) -> int:
        """The mean over the first documents of each corpus."""
        firsts = [itertools.islice(find_corpus(given).documents(), LOOKED_AT) for given in self.corpora]
        sizes = [min(len(document.text), most) for documents in firsts for document in documents]
        return round(sum(sizes) / len(sizes)) if sizes else most

    def open(self, root: Path, progress: Progress) -> Searcher:
        return open_index(root, [find_corpus(given) for given in self.corpora], progress)


@part
class NoRetriever(Retriever):
    """Samples are written from the task definition alone."""

    def typical_characters(self, most: int) -> None:  # noqa: ARG002
        return None

    def open(self, root: Path, progress: Progress) -> None:  # noqa: ARG002
        return None
