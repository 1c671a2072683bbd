"""What the server or the way to it refused, in words for whoever has to put it right."""

from typing import TYPE_CHECKING, Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.stages.retrieve.elastic.access import Access

if TYPE_CHECKING:
    from elasticsearch import ApiError
    from elasticsearch.exceptions import TransportError

LONGEST = 300
"""Characters of the server's own words that are repeated."""
DENIED = "privileges: cluster `monitor`; on the indexes `<prefix>-*` `create_index`, `manage`, `write`, `read`"


def explained(error: "ApiError | TransportError", access: Access) -> UserError:
    """The error to raise instead."""
    from elasticsearch import ApiError, SerializationError, UnsupportedProductError

    if isinstance(error, (UnsupportedProductError, SerializationError)):
        return another_product(access)
    if isinstance(error, ApiError):
        return refused(error.status_code, error.body, access)
    return _unreachable(error, access)


def another_product(access: Access) -> UserError:
    """Something answers, but it doesn't call itself Elasticsearch."""
    return UserError(
        f"Elasticsearch: what answers at {access.url} is not an Elasticsearch",
        allowed="Elasticsearch 7.14 or later, 8 or 9",
        next_step="check retriever.url; OpenSearch and other relatives are refused by the official client",
    )


def refused(status: int, body: Any, access: Access) -> UserError:
    """A reply with an error, to a request or to one piece of it."""
    got = f"HTTP {status}: {reason(body)}"
    if status == 401:
        wanted = f"export {access.api_key_env}=..., or {access.username_env}=... and {access.password_env}=..."
        return UserError(f"Elasticsearch: {access.url} doesn't know who asks", got=got, next_step=wanted)
    if status == 403:
        return UserError(f"Elasticsearch: {access.url} denies this account what it needs", got=got, allowed=DENIED)
    if status == 413:
        return UserError(
            "Elasticsearch: a request is larger than the server takes",
            got=got,
            next_step="give a smaller retriever.request_bytes, or raise http.max_content_length (or a proxy's limit)",
        )
    if status == 429 or status >= 500:
        return StageFailed(
            f"Elasticsearch: {access.url} is overloaded or broken; {access.retries} further tries didn't help",
            got=got,
            next_step="run again later: what was indexed is kept; a smaller retriever.concurrency eases its load",
        )
    return UserError(f"Elasticsearch: {access.url} refuses a request", got=got)


def reason(body: Any) -> str:
    """The server's own words, bounded."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        cause = (error.get("root_cause") or [error])[0]
        inner = error.get("caused_by") or cause.get("caused_by") or {}
        words = [cause.get("type"), cause.get("reason"), inner.get("reason")]
        return ": ".join(str(word) for word in words if word)[:LONGEST]
    return str(error)[:LONGEST] or "no reason given"


def _unreachable(error: "TransportError", access: Access) -> UserError:
    from elastic_transport import ConnectionTimeout, TlsError

    if isinstance(error, TlsError):
        return UserError(
            f"Elasticsearch: no trusted connection to {access.url}",
            got=error.message[:LONGEST],
            next_step=f"for an authority of your own: export {access.ca_file_env}=<file with its certificate>",
        )
    if isinstance(error, ConnectionTimeout):
        return StageFailed(
            f"Elasticsearch: {access.url} didn't answer",
            got=f"nothing within {access.timeout:g} s",
            next_step="run again, or give a longer retriever.timeout",
        )
    return StageFailed(
        f"Elasticsearch: no server answers at {access.url}",
        got=error.message[:LONGEST],
        next_step="start it, or check retriever.url; retriever=embedded needs no server",
    )
