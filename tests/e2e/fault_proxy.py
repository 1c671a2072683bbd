"""A proxy in front of a real server, for faults that the server can't be asked for, such as overload."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


Forward = Callable[[Request], Reply]
Rule = Callable[[Request, Forward], Reply]


@dataclass
class Proxy:
    """Passes every request through `rule`, which may forward it, change the reply, or make one up."""

    url: str = ""
    rule: Rule = field(default=lambda request, forward: forward(request))
    seen: list[Request] = field(default_factory=list)

    def requests_to(self, path: str) -> list[Request]:
        """The requests so far with this in their path."""
        return [request for request in self.seen if path in request.path]


@contextmanager
def proxied(target: str, rule: Rule | None = None, ca_file: str | None = None) -> Iterator[Proxy]:
    """A plain HTTP proxy for the server at `target`, whose certificate is verified with `ca_file`.

    It also works as a forward proxy: requests with an absolute URL go to `target`, whatever their host.
    """
    proxy = Proxy(rule=rule) if rule else Proxy()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy, target, ca_file))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(proxy: Proxy, target: str, ca_file: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            parts = urlsplit(self.path)
            path = parts._replace(scheme="", netloc="").geturl() if parts.scheme else self.path
            request = Request(self.command, path, headers, body)
            proxy.seen.append(request)
            reply = proxy.rule(request, lambda request: forward(target, request, ca_file))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Keep the output of the tests clean."""

    return Handler


def forward(target: str, request: Request, ca_file: str | None) -> Reply:
    parts = urlsplit(target)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca_file)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=60, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        headers = {name: value for name, value in request.headers.items() if name not in (*HOP_BY_HOP, "host")}
        connection.request(request.method, request.path, request.body, headers)
        reply = connection.getresponse()
        kept = {name: value for name, value in reply.getheaders() if name.lower() not in HOP_BY_HOP}
        return Reply(reply.status, reply.read(), kept)
    finally:
        connection.close()
