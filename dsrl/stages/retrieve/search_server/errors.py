"""Errors of search servers, and what to tell the user about them. The type of an error decides, not its status."""

import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from dsrl.core.errors import StageFailed, UserError
from dsrl.stages.retrieve.search_server.access import Access

MAX_REASON = 300
"""Characters of the server's own message that are repeated."""
PROBE_TIMEOUT = 2.0
PRIVILEGES = {
    "PUT": "create_index, manage", "_bulk": "create or write", "_alias": "manage", "_mapping": "manage",
    "_refresh": "maintenance or manage", "_count": "read", "_mget": "read", "_msearch": "read", "_search": "read",
    "GET": "view_index_metadata",
}  # fmt: skip


class ServerError(Exception):
    """A reply, or a part of a bulk or msearch reply, that reports an error."""

    def __init__(self, status: int, body: Any, method: str, path: str) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.body, self.method, self.path = status, body, method, path

    @property
    def type(self) -> str:
        """Type of the error in the server's words, such as `security_exception`; empty if it names none."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return str(error.get("type", "")) if isinstance(error, dict) else ""

    @property
    def reason(self) -> str:
        """The server's own message, shortened."""
        body = self.body
        error = body.get("error", body.get("message", body)) if isinstance(body, dict) else body
        if isinstance(error, dict):
            cause = (error.get("root_cause") or [error])[0]
            inner = error.get("caused_by") or cause.get("caused_by") or {}
            words = [cause.get("type"), cause.get("reason"), inner.get("reason")]
            return ": ".join(str(word) for word in words if word)[:MAX_REASON]
        return str(error)[:MAX_REASON] if error else "no reason given"

    @property
    def is_outage(self) -> bool:
        """Whether the server, or the way to it, is expected to come back."""
        return self.status in (502, 503, 504)


class NoReply(Exception):
    """No reply from any address: refused, dropped or timed-out connections."""

    def __init__(self, address: str, reason: str, *, tls: bool = False) -> None:
        super().__init__(reason)
        self.address, self.reason = address, reason
        self.tls = tls
        """Whether the certificate or the TLS handshake was at fault."""


def explain(error: ServerError | NoReply, access: Access) -> UserError:
    """The error to show instead."""
    return _explain_reply(error, access) if isinstance(error, ServerError) else _explain_silence(error, access)


def not_a_search_server(address: str, got: str) -> UserError:
    return UserError(
        f"{address} is not a search server",
        got=got[:MAX_REASON],
        allowed="Elasticsearch 7 or later, OpenSearch 1 or later",
        next_step="correct retriever.url",
    )


def _explain_reply(error: ServerError, access: Access) -> UserError:
    server = access.addresses[0]
    got = f"HTTP {error.status} for {error.method} {error.path}: {error.reason}"
    if error.type == "cluster_block_exception":
        return StageFailed(
            "search server: the index is blocked, by a full disk or by an administrator",
            got=got,
            next_step="free disk space or remove the block, and run again: it will be resumed",
        )
    if error.type == "index_not_found_exception":
        return UserError(
            "search server: an index was deleted while in use", got=got, next_step="run again: it will be rebuilt"
        )
    if error.status == 401:
        return UserError(
            f"search server: {server} does not accept the credentials",
            got=got,
            next_step=f"export {access.api_key_env}=..., or {access.username_env}=... and {access.password_env}=...",
        )
    if error.type == "security_exception" or error.status == 403:
        return _denied(error, got, server)
    if error.status == 413:
        return UserError(
            "search server: a single passage is larger than the server or a proxy accepts",
            got=got,
            next_step="lower retriever.ingest.max_chars, or raise http.max_content_length (or the proxy's limit)",
        )
    if error.type == "circuit_breaking_exception":
        return StageFailed(
            f"search server: {server} is out of memory",
            got=got,
            next_step="give it more memory, or lower retriever.concurrency, and run again: it will be resumed",
        )
    if error.status == 429 or error.status >= 500:
        return StageFailed(
            f"search server: {server} is overloaded or broken",
            got=got,
            allowed=f"{access.retries} retries (retriever.retries), {access.patience:g} s (retriever.patience)",
            next_step="lower retriever.concurrency, or run again later: it will be resumed",
        )
    return UserError(f"search server: {server} rejected a request", got=got)


def _denied(error: ServerError, got: str, server: str) -> UserError:
    """Name the index and the privilege, which a reply without a body doesn't."""
    parts = [part for part in error.path.strip("/").split("/") if part]
    index = parts[0] if parts and not parts[0].startswith("_") else None
    operation = parts[1] if len(parts) > 1 else parts[0] if parts else "/"
    privilege = PRIVILEGES.get(operation) or PRIVILEGES.get(error.method, "read")
    needed = f"the privilege {privilege} on index {index}" if index else f"the cluster privilege for {operation}"
    hint = "; requests are not signed for AWS IAM" if "amazonaws.com" in server else ""
    return UserError(
        f"search server: {server} denies access", got=got, allowed=f"{needed}{hint}",
        next_step="grant it, or use an account or retriever.prefix that has it (docs/elasticsearch.md)",
    )  # fmt: skip


def _explain_silence(error: NoReply, access: Access) -> UserError:
    encrypted = error.address.startswith("https:")
    if speaks_tls(error.address) is not encrypted and _accepts_connections(error.address):
        scheme = "http" if encrypted else "https"
        if speaks_tls(error.address) or "WRONG_VERSION_NUMBER" in error.reason or "record layer" in error.reason:
            return UserError(
                f"search server: {error.address} speaks {scheme}",
                got=error.reason,
                next_step=f"set retriever.url={scheme}:{error.address.partition(':')[2]}",
            )
    if error.tls:
        return UserError(
            f"search server: the certificate of {error.address} is not trusted",
            got=error.reason[:MAX_REASON],
            next_step=f"export {access.ca_file_env}=FILE with its authority, or {access.ca_fingerprint_env}=...",
        )
    return StageFailed(
        f"search server: no reply from {', '.join(access.addresses)}",
        got=error.reason[:MAX_REASON],
        next_step="start it, or correct retriever.url; retriever=embedded needs no server",
    )


def speaks_tls(address: str) -> bool:
    """Whether a TLS handshake succeeds, certificate aside."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname, parts.port), PROBE_TIMEOUT) as plain:
            context.wrap_socket(plain, server_hostname=parts.hostname).close()
    except OSError:
        return False
    return True


def _accepts_connections(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port), PROBE_TIMEOUT).close()
    except OSError:
        return False
    return True
