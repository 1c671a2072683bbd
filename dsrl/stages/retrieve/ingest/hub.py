"""Streams datasets from the Hugging Face Hub; nothing is kept on disk."""

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from dsrl.core.errors import UserError
from dsrl.stages.retrieve.ingest.records import Document, MalformedRow
from dsrl.stages.retrieve.ingest.rows import RowFields

PATTERN = re.compile(r"hf:(?P<id>[^:@#]+)(?::(?P<config>[^@#]+))?(?:@(?P<revision>[^#]+))?(?:#(?P<split>.+))?")
ENDPOINT = "https://huggingface.co"
CONNECT_TIMEOUT = 2.0
"""Seconds; the Hub's own client retries for half a minute before it reports that there is no network."""


@dataclass(frozen=True)
class HubDataset:
    """One split of a dataset."""

    id: str
    config: str | None = None
    revision: str | None = None
    """Commit; None: the newest one."""
    split: str | None = None
    """None: `train`."""

    @classmethod
    def parse(cls, given: str) -> "HubDataset":
        """Read `hf:owner/name:config@revision#split`. Raises `UserError`."""
        match = PATTERN.fullmatch(given)
        if match is None:
            raise UserError(
                "retriever.corpora: not a dataset on the Hugging Face Hub",
                got=given,
                allowed="hf:owner/name, optionally with :config, @revision and #split",
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"hf:{self.id}"

    def key_fields(self) -> dict[str, str | None]:
        return asdict(self)

    def check(self) -> None:
        """Raise `UserError` if the package `datasets` is not installed."""
        if find_spec("datasets") is None:
            raise UserError(f"{self} needs the package datasets", next_step="pip install 'dsrl[local]'")

    def rows(self, fields: RowFields) -> Iterator[Document | MalformedRow]:
        """Stream the rows. Raises `UserError` if the Hub doesn't answer or has no such dataset."""
        from datasets import load_dataset

        try:
            self._check_network()
            rows = load_dataset(
                self.id, self.config, split=self.split or "train", revision=self.revision, streaming=True
            )
            for number, row in enumerate(rows, 1):
                parsed = fields.parse(row, str(number))
                yield MalformedRow(str(self), number, parsed) if isinstance(parsed, str) else parsed
        except Exception as error:  # the errors of `datasets` have no common base class
            reason = str(error).splitlines()[0][:200] if str(error) else ""
            raise UserError(
                f"dataset {self} can't be loaded from the Hugging Face Hub",
                got=f"{type(error).__name__}: {reason}",
                next_step="check id, config, split and network, or use a local file: retriever.corpora=[FILE.jsonl]",
            ) from error

    def _check_network(self) -> None:
        """Raise OSError if the Hub can't be reached. Skipped behind a proxy, offline, and for local datasets."""
        hub = urlsplit(os.environ.get("HF_ENDPOINT", ENDPOINT))
        if getproxies() or os.environ.get("HF_HUB_OFFLINE") or Path(self.id).exists():
            return
        socket.create_connection((hub.hostname, hub.port or 443), timeout=CONNECT_TIMEOUT).close()
