"""A chat completion server on the loopback interface that misbehaves on demand."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Says:
    """An answer that is not the usual one."""

    status: int = 200
    body: object = None
    """A JSON value, or bytes as they are."""
    headers: dict[str, str] = field(default_factory=dict)


HANG = object()
DROP = object()
ONE_ONLY = object()
"""Brings a single choice, however many were asked for."""


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Says:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Says(status, {"error": {"message": message, "type": "test", "code": code}}, named)


def completion(texts: list[str], finish_reason: str = "stop", **more: object) -> Json:
    choices = [
        {"index": i, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 10, "completion_tokens": 3 * len(texts), "prompt_tokens_details": {"cached_tokens": 4}}
    return {"id": "x", "object": "chat.completion", "model": "tested-1", "choices": choices, "usage": usage, **more}


def echo(body: Json, choice: int) -> str:
    """Choice j of seed s is what choice 0 of seed s + j would be, as with vLLM."""
    return f"{body['messages'][-1]['content']} / {body.get('seed', 0) + choice}"


@dataclass
class Script:
    """What the server has been asked, and what it does next; the usual answer once the steps are used up."""

    steps: deque[object]
    answer: Callable[[Json, int], str]
    latency: float
    url: str = ""
    bodies: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request, names in lower case."""
    times: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True
    script: Script

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script = self.script
        with script.lock:
            script.bodies.append(body)
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            script.times.append(time.monotonic())
            step = script.steps.popleft() if script.steps else None
        if script.latency:
            time.sleep(script.latency)
        if step is HANG:
            script.over.wait()
        if step in (HANG, DROP):
            self.close_connection = True
            return
        count = 1 if step is ONE_ONLY else body.get("n", 1)
        usual = Says(200, completion([script.answer(body, j) for j in range(count)]))
        self._say(step if isinstance(step, Says) else usual)

    def _say(self, says: Says) -> None:
        data = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
        self.send_response(says.status)
        for name, value in {"Content-Type": "application/json", **says.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed or cancelled hangs up in the middle; that is what some tests are about."""


@contextmanager
def serve(*steps: object, answer: Callable[[Json, int], str] = echo, latency: float = 0.0) -> Iterator[Script]:
    script = Script(deque(steps), answer, latency)
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"script": script}))
    script.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        script.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
