"""HTTP/1.1 by hand, for speed: requests come off a connection one at a time, each as an `Exchange` to be answered."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
LONGEST_HEAD = 65536
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
JSON_HEAD = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"

Handler = Callable[["Exchange"], None]


class Exchange:
    """One request, and the one chance to answer it, at once or later."""

    __slots__ = ("body", "closing", "connection", "head", "method", "open", "parameters", "path", "query", "when_lost")

    def __init__(self, connection: "Connection", head: bytes, body: bytes) -> None:
        self.connection, self.head, self.body = connection, head, body
        self.method, target, _ = head[: head.find(b"\r\n")].decode("latin-1").split(" ", 2)
        self.path, _, self.query = target.partition("?")
        self.parameters: Mapping[str, str] = {}
        """What the route's `{name}` stood for."""
        self.closing = CLOSE.search(head) is not None
        self.open = True
        """Not yet answered, and the client is still there."""
        self.when_lost: Callable[[], None] | None = None
        """Called if the client hangs up before the answer."""

    def header(self, name: str) -> str:
        """A request header; empty where there is none."""
        pattern = rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)"
        found = re.search(pattern, self.head, re.IGNORECASE)
        return found[1].decode("latin-1") if found else ""

    def arguments(self) -> dict[str, str]:
        """The query string."""
        return dict(parse_qsl(self.query))

    def reply(self, status: int, payload: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a JSON value."""
        self.reply_bytes(status, json.dumps(payload).encode(), headers)

    def reply_bytes(
        self, status: int, content: bytes, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        """Answer with these bytes."""
        self.write(head(status, len(content), headers, kind) + content)
        self.finish()

    def write(self, data: bytes) -> None:
        """Bytes as they are, a piece of an answer; `finish` ends it."""
        if self.open:
            self.connection.transport.write(data)

    def finish(self) -> None:
        """The answer is out: the connection is free for the next request."""
        if self.open:
            self.open = False
            self.connection.free(self.closing)

    def drop(self) -> None:
        """Break the connection."""
        self.open = False
        self.connection.transport.abort()


def head(status: int, length: int, headers: Mapping[str, str] | None = None, kind: str = "application/json") -> bytes:
    """Status line and headers of an answer."""
    if not headers and kind == "application/json":
        return STATUS_LINES[status] + JSON_HEAD % length
    fixed = {"Content-Type": kind, "Content-Length": str(length), **(headers or {})}
    return STATUS_LINES[status] + "".join(f"{name}: {value}\r\n" for name, value in fixed.items()).encode() + b"\r\n"


class Connection(asyncio.Protocol):
    """A client's connection, kept alive between requests."""

    transport: asyncio.Transport

    def __init__(self, handle: Handler, connections: set["Connection"]) -> None:
        self._handle, self._connections = handle, connections
        self._buffer = bytearray()
        self._exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.open:
            exchange.open = False
            if exchange.when_lost is not None:
                exchange.when_lost()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def free(self, closing: bool) -> None:
        """The exchange has been answered."""
        self._exchange = None
        if closing:
            self.transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Hand on the next whole request, if one has come and none is being answered."""
        if self._exchange is not None or self.transport.is_closing():
            return
        try:
            found = parse(self._buffer)
            if found is None:
                return
            head, body, end = found
            exchange = self._exchange = Exchange(self, head, body)
        except ValueError:
            self.transport.write(STATUS_LINES[400] + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return
        del self._buffer[:end]
        self._handle(exchange)


def parse(buffer: bytearray) -> tuple[bytes, bytes, int] | None:
    """Head, body and where they end; None while something is missing. Raises `ValueError` for what is no HTTP."""
    end = buffer.find(END)
    if end < 0:
        if len(buffer) > LONGEST_HEAD:
            raise ValueError("the head of the request doesn't end")
        return None
    head, start = bytes(buffer[: end + 2]), end + len(END)
    length = LENGTH.search(head)
    if length is None and CHUNKED.search(head):
        unpacked = chunks(buffer, start)
        return unpacked and (head, *unpacked)
    stop = start + (int(length[1]) if length else 0)
    return (head, bytes(buffer[start:stop]), stop) if len(buffer) >= stop else None


def chunks(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """A chunked body and where it ends; None while something is missing."""
    body = bytearray()
    while True:
        line = buffer.find(b"\r\n", start)
        if line < 0:
            return None
        size = int(bytes(buffer[start:line]).partition(b";")[0], 16)
        start = line + 2 + size + 2
        if len(buffer) < start:
            return None
        if size == 0:
            return bytes(body), start
        body += buffer[line + 2 : start - 2]


class Routes:
    """(method, path) -> what answers. A path may hold `{name}` for one of its steps."""

    def __init__(self, routes: Mapping[tuple[str, str], Handler]) -> None:
        self._exact = {route: handler for route, handler in routes.items() if "{" not in route[1]}
        self._patterns = [
            (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), handler)
            for (method, path), handler in routes.items()
            if "{" in path
        ]

    def find(self, exchange: Exchange) -> Handler | None:
        """What answers this request, with the parameters of its path filled in."""
        if handler := self._exact.get((exchange.method, exchange.path)):
            return handler
        for method, pattern, handler in self._patterns:
            found = pattern.fullmatch(exchange.path) if method == exchange.method else None
            if found:
                exchange.parameters = found.groupdict()
                return handler
        return None


def error(status: int, message: str, code: str) -> dict[str, Any]:
    """An error body in OpenAI's shape."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    kind = "server_error" if status >= 500 else kind
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
