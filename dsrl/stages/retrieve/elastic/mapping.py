"""What an index looks like, what it is called, and whether one that is there is ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.core.digest import digest
from dsrl.core.errors import UserError

VERSION = 1
"""Raised when the fields or the analyzer change: indexes of another version are left alone and built anew."""
LONGEST_KEYWORD = 8191
"""Characters of a source that are searchable as a whole; the server refuses more than 32,766 bytes."""
FIELDS: dict[str, dict[str, Any]] = {
    "source": {"type": "keyword", "ignore_above": LONGEST_KEYWORD},
    "offset": {"type": "integer", "index": False},
    "number": {"type": "long"},
    "text": {"type": "text", "analyzer": "english", "index_options": "freqs", "similarity": "bm25"},
}
MAPPINGS = {"dynamic": "strict", "properties": FIELDS}
BM25 = {"type": "BM25", "k1": 1.2, "b": 0.75}


@dataclass(frozen=True)
class Place:
    """Where the passages of one corpus are, without those that the corpora before it have too."""

    corpus: str
    alias: str
    """Stands for the index once it is whole."""

    @property
    def index(self) -> str:
        """The index itself, which another run may still be filling."""
        return f"{self.alias}-passages"

    @property
    def versions(self) -> str:
        """Pattern of the aliases of the same passages, made by any version of dsrl."""
        return f"{self.alias.rpartition('-v')[0]}-v*"


def places(prefix: str, corpora: Sequence[tuple[str, Any]], options: Any) -> list[Place]:
    """One for each corpus, given as name and identity: more corpora at the end of the list leave the first ones be."""
    found = []
    for number, (name, _) in enumerate(corpora, 1):
        key = digest([[identity for _, identity in corpora[:number]], options])
        found.append(Place(name, f"{prefix}-{key}-v{VERSION}"))
    return found


def settings(shards: int, replicas: int) -> dict[str, Any]:
    """Nothing is left to the server's defaults. Passages become visible when the index is whole, not before."""
    return {
        "index": {"number_of_shards": shards, "number_of_replicas": replicas, "refresh_interval": "-1"},
        "similarity": {"bm25": BM25},
    }


def check_mapping(index: str, found: dict[str, Any]) -> None:
    """Raises `UserError` where an index of this name holds something else."""
    fields = found.get("properties", {})
    wrong = [name for name, wanted in FIELDS.items() if wanted.items() - fields.get(name, {}).items()]
    wrong += [name for name in fields if name not in FIELDS]
    if wrong:
        raise UserError(
            f"Elasticsearch: index {index} is there with other fields",
            got=", ".join(f"{name}: {fields.get(name, 'missing')}" for name in wrong),
            next_step=f"delete that index, or give another retriever.prefix than the first part of {index}",
        )
