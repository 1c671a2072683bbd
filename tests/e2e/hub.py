"""A minimal Hugging Face hub for uploads, which accepts or refuses them."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """Received requests."""

    url: str = ""
    tokens: set[str] = field(default_factory=set)
    made: list[dict[str, Any]] = field(default_factory=list)
    """Requests to create a repository."""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Kind of repository -> path -> content."""


@contextmanager
def serve(refuses: int | None = None) -> Iterator[Hub]:
    """Run a hub on this machine. `refuses`: answer every POST with this status."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens.add(self.headers.get("Authorization", ""))
            if refuses:
                self.answer({"error": "You don't have the rights"}, refuses)
            else:
                self.answer(self.done(body))

        def do_GET(self) -> None:
            self.answer({"error": "no such thing here"}, 404)

        def done(self, body: bytes) -> dict[str, Any]:
            if self.path == "/api/repos/create":
                hub.made.append(json.loads(body))
                kind = "datasets/" if hub.made[-1].get("type") == "dataset" else ""
                return {"url": f"{hub.url}/{kind}me/shapes"}
            if "/preupload/" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
            if "/commit/" in self.path:
                lines = [json.loads(line) for line in body.splitlines() if line]
                sent = [line["value"] for line in lines if line["key"] == "file"]
                kind = self.path.split("/")[2]
                hub.files[kind] = {file["path"]: base64.b64decode(file["content"]) for file in sent}
                return {"commitUrl": f"{hub.url}/me/shapes/commit/0", "commitOid": "0" * 40, "success": True}
            return {"errors": [], "warnings": []}

        def answer(self, value: dict[str, Any], status: int = 200) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Don't log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
