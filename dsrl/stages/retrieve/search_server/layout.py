"""Names, settings and fields of our indexes on a server, and the check that an existing one is as we need it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsrl.core.digest import digest
from dsrl.core.errors import UserError

VERSION = 1
"""Raised when fields or analyzer change: indexes of another version are kept, and new ones are built beside them."""
MAX_KEYWORD_CHARS = 8191
"""Longer sources are stored but not indexed; servers refuse keywords of more than 32,766 bytes."""
FIELDS: dict[str, dict[str, Any]] = {
    "source": {"type": "keyword", "ignore_above": MAX_KEYWORD_CHARS},
    "offset": {"type": "integer", "index": False},
    "number": {"type": "long"},
    "text": {"type": "text", "analyzer": "english", "index_options": "freqs", "similarity": "bm25"},
}
MAPPINGS = {"dynamic": "strict", "_source": {"enabled": True}, "properties": FIELDS}
HARMLESS = {"store", "fields", "copy_to", "meta", "eager_global_ordinals", "term_vector"}
"""Parameters that a template may add to our fields without changing a search."""
BM25 = {"type": "BM25", "k1": 1.2, "b": 0.75}


@dataclass(frozen=True)
class IndexName:
    """Names of the index of one corpus. It leaves out passages that corpora before it contain too."""

    corpus: str
    alias: str
    """Set once the index is complete."""

    @property
    def index(self) -> str:
        """The index itself, which another run may still be filling."""
        return f"{self.alias}-passages"

    @property
    def any_version(self) -> str:
        """Pattern of the aliases of the same passages, built by any version of dsrl."""
        return f"{self.alias.rpartition('-v')[0]}-v*"


def index_names(prefix: str, corpora: Sequence[tuple[str, Any]], options: Any) -> list[IndexName]:
    """One for each corpus, given as (name, key fields). Appending corpora to the list doesn't change the first ones."""
    names = []
    for number, (name, _) in enumerate(corpora, 1):
        key = digest([[key_fields for _, key_fields in corpora[:number]], options])
        names.append(IndexName(name, f"{prefix}-{key}-v{VERSION}"))
    return names


def creation_request(shards: int | None, replicas: int | None) -> dict[str, Any]:
    """Body of the request that creates an index.

    It states everything that search results depend on, because templates may set the same. Shards and replicas are
    left to the server unless they are given; Elastic Cloud Serverless refuses them.
    """
    chosen = {"number_of_shards": shards, "number_of_replicas": replicas}
    index = {
        "refresh_interval": "-1",  # passages become visible once, when the index is complete
        "default_pipeline": "_none",
        "final_pipeline": "_none",
        "similarity": {"bm25": BM25},
        "analysis": {"analyzer": {"english": {"type": "english"}}},
        **{name: value for name, value in chosen.items() if value is not None},
    }
    return {"settings": {"index": index}, "mappings": MAPPINGS}


def check_layout(name: str, found: dict[str, Any]) -> None:
    """Raise `UserError` if the mappings or settings of an index would change a search. Other additions are accepted.

    `found` is the reply to `GET /<index>` for it.
    """
    mappings = found.get("mappings", {})
    fields, runtime = mappings.get("properties", {}), mappings.get("runtime", {})
    wrong = []
    for field, wanted in FIELDS.items():
        actual = fields.get(field, {})
        extra = actual.keys() - wanted.keys() - HARMLESS
        if wanted.items() - actual.items() or extra or field in runtime:
            wrong.append(f"field {field}: {runtime.get(field) or actual or 'missing'}")
    source = mappings.get("_source", {})
    if source.get("enabled") is False or source.get("includes") or source.get("excludes"):
        wrong.append(f"_source: {source}")
    if mappings.get("_routing", {}).get("required"):
        wrong.append("_routing: required")
    settings = found.get("settings", {}).get("index", {})
    analyzer = settings.get("analysis", {}).get("analyzer", {}).get("english", {"type": "english"})
    if analyzer.get("type") != "english" or analyzer.keys() & {"stopwords", "stopwords_path", "stem_exclusion"}:
        wrong.append(f"analyzer english: {analyzer}")
    wrong += [
        f"{key}: {settings[key]}"
        for key in ("default_pipeline", "final_pipeline")
        if settings.get(key, "_none") != "_none"
    ]
    if wrong:
        raise UserError(
            f"search server: index {name} has other fields or settings than dsrl needs",
            got="; ".join(wrong),
            next_step="change the template that sets them, or retriever.prefix; delete the index if it exists",
        )
