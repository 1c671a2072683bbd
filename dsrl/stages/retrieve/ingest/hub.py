"""Data sets of the Hugging Face hub, streamed: nothing is kept on disk."""

import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import Document, Malformed
from dsrl.stages.retrieve.ingest.rows import Fields

ENDPOINT = "https://huggingface.co"
PATIENCE = 2.0
"""Seconds to wait for the hub to answer at all; its own client tries for half a minute."""


@dataclass(frozen=True)
class Hub:
    """One split of a data set."""

    id: str
    config: str | None = None
    revision: str | None = None
    """Commit; None: whatever is there today."""
    split: str | None = None
    """`train` where none is given."""

    def __str__(self) -> str:
        return f"hf:{self.id}"

    def key_fields(self) -> dict[str, str | None]:
        """All that names the content."""
        return asdict(self)

    def check(self) -> None:
        """Raises `UserError` where the package that reads data sets is missing."""
        if find_spec("datasets") is None:
            raise UserError(f"{self} needs the package datasets", next_step="pip install 'dsrl[local]'")

    def rows(self, fields: Fields) -> Iterator[Document | Malformed]:
        """Row after row over the network."""
        for number, row in enumerate(self._streamed(), 1):
            found = fields.document(row, str(number))
            yield Malformed(str(self), number, found) if isinstance(found, str) else found

    def _streamed(self) -> Iterator[Any]:
        from datasets import load_dataset

        try:
            self._knock()
            data = load_dataset(
                self.id, self.config, split=self.split or "train", revision=self.revision, streaming=True
            )
            yield from data
        except Exception as error:  # the hub's errors have no common base
            reason = str(error).splitlines()[0][:200] if str(error) else ""
            raise UserError(
                f"data set {self} can't be had from the Hugging Face hub",
                got=f"{type(error).__name__}: {reason}",
                next_step="check id, config, split and network, or give a local file: retriever.corpora=[FILE.jsonl]",
            ) from error

    def _knock(self) -> None:
        """Raises OSError where the hub is known to be out of reach; behind a proxy, or with data sets that are on this
        machine, that can't be known."""
        hub = urlsplit(os.environ.get("HF_ENDPOINT", ENDPOINT))
        if getproxies() or os.environ.get("HF_HUB_OFFLINE") or Path(self.id).exists():
            return
        socket.create_connection((hub.hostname, hub.port or 443), timeout=PATIENCE).close()
