"""A small proxy in front of the real server that adds TLS, accounts, overload and other faults."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
JSON = {"Content-Type": "application/json", "X-Elastic-Product": "Elasticsearch"}


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What it gets."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


Ask = Callable[[Request], Reply]
Rule = Callable[[Request, Ask], Reply]


@dataclass
class Proxy:
    """Passes everything through `rule`, which may ask the server behind it, change its reply, or give one itself."""

    url: str = ""
    rule: Rule = field(default=lambda request, ask: ask(request))
    seen: list[Request] = field(default_factory=list)

    def asked(self, path: str) -> list[Request]:
        """The requests so far with this in their path."""
        return [request for request in self.seen if path in request.path]


@contextmanager
def proxied(target: str, rule: Rule | None = None, certificate: Path | None = None) -> Iterator[Proxy]:
    """A proxy before the server at `target`; with a certificate (and its key in one file) it speaks TLS."""
    proxy = Proxy(rule=rule) if rule else Proxy()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy, target))
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    proxy.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(proxy: Proxy, target: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            request = Request(self.command, self.path, headers, body)
            proxy.seen.append(request)
            reply = proxy.rule(request, lambda request: forward(target, request))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    return Handler


def forward(target: str, request: Request) -> Reply:
    """What the server behind says."""
    kind = http.client.HTTPSConnection if target.startswith("https:") else http.client.HTTPConnection
    connection = kind(urlsplit(target).netloc, timeout=60)
    try:
        headers = {name: value for name, value in request.headers.items() if name not in (*HOP_BY_HOP, "host")}
        connection.request(request.method, request.path, request.body, headers)
        reply = connection.getresponse()
        kept = {name: value for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP}
        return Reply(reply.status, reply.read(), kept)
    finally:
        connection.close()
