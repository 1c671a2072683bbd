"""`/v1/files` and `/v1/batches`: requests in a file, worked through seconds later, with what may go wrong there."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dsrl.core.digest import digest
from tests.support.faultserver import draw
from tests.support.faultserver.chat import MESSAGES, REFUSALS, Chat, Wrong
from tests.support.faultserver.http import Exchange, Handler, error

BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
NOT_BEGUN = ("failed",)
LOST = ("drop", "cut", "hang")
"""Faults of a request that has no line in the results."""
BROKEN = ("truncated", "malformed", "html")
"""Faults of a request whose line can't be read."""
CODES = {"429": "rate_limit_exceeded", "quota": "insufficient_quota"}
Json = dict[str, Any]


@dataclass
class Batch:
    """One job and how it ends."""

    batch_id: str
    input_file: str
    metadata: Json
    created: float
    requests: list[Json]
    ends: str
    status: str = "in_progress"
    output: str | None = None
    errors: str | None = None
    completed: int = 0
    failed: int = 0
    problem: Json | None = None

    def shown(self) -> Json:
        """As the API says it."""
        counts = {"total": len(self.requests), "completed": self.completed, "failed": self.failed}
        return {
            "id": self.batch_id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": int(self.created),
            "input_file_id": self.input_file,
            "metadata": self.metadata,
            "status": self.status,
            "output_file_id": self.output,
            "error_file_id": self.errors,
            "request_counts": counts,
            "errors": self.problem and {"object": "list", "data": [self.problem]},
        }


@dataclass
class Lines:
    """Results of a batch, in the order in which they come."""

    output: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)


class Batches:
    """Answers both groups of routes. Faults of single requests are drawn as for single HTTP requests."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Batch] = {}
        self._numbers = count(1)

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        handlers: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/files"): self.upload,
            ("GET", "/v1/files/{id}/content"): self.content,
            ("POST", "/v1/batches"): self.create,
            ("GET", "/v1/batches"): self.listed,
            ("GET", "/v1/batches/{id}"): self.retrieve,
            ("POST", "/v1/batches/{id}/cancel"): self.cancel,
        }
        return {route: self._guarded(handler) for route, handler in handlers.items()}

    def upload(self, exchange: Exchange) -> None:
        """A file of requests."""
        content = _uploaded(exchange)
        name = self._keep("file", content)
        exchange.reply(200, {"id": name, "object": "file", "bytes": len(content), "purpose": "batch"})

    def content(self, exchange: Exchange) -> None:
        exchange.reply_bytes(200, self._file(exchange.parameters["id"]), kind="application/octet-stream")

    def create(self, exchange: Exchange) -> None:
        """A job, which is worked through after `batch_seconds`."""
        asked = json.loads(exchange.body)
        requests = _requests(self._file(asked["input_file_id"]))
        name = f"batch_{next(self._numbers)}"
        end = self._chat.faults.batch_end
        made = Batch(name, asked["input_file_id"], asked.get("metadata") or {}, time.time(), requests, end)
        self._batches[name] = made
        most = self._chat.faults.batch_most
        if most is not None and len(requests) > most:
            made.ends, made.problem = "failed", _problem("token_limit_exceeded", "Enqueued token limit reached.")
        elif made.ends == "failed":
            made.problem = _problem("invalid_request", "The file could not be validated.", line=1)
        exchange.reply(200, made.shown())

    def retrieve(self, exchange: Exchange) -> None:
        exchange.reply(200, self._batch(exchange.parameters["id"]).shown())

    def listed(self, exchange: Exchange) -> None:
        """The newest first, in pages."""
        arguments = exchange.arguments()
        found = list(reversed(self._batches))
        start = found.index(arguments["after"]) + 1 if arguments.get("after") in found else 0
        end = start + int(arguments.get("limit", 20))
        page = [self._batch(name).shown() for name in found[start:end]]
        exchange.reply(200, {"object": "list", "data": page, "has_more": end < len(found)})

    def cancel(self, exchange: Exchange) -> None:
        batch = self._batch(exchange.parameters["id"])
        if batch.status == "in_progress":
            self._finish(batch, "cancelled")
        exchange.reply(200, batch.shown())

    def _guarded(self, handler: Handler) -> Handler:
        """Refuses what the whole server refuses."""

        def handle(exchange: Exchange) -> None:
            faults = self._chat.faults
            if faults.key is not None and exchange.header("authorization") != f"Bearer {faults.key}":
                exchange.reply(401, error(401, "Incorrect API key provided.", "invalid_api_key"))
            elif faults.down == "503" or self._chat.gate.outage() == "503":
                exchange.reply(503, error(503, MESSAGES["503"], "outage"))
            else:
                self._try(handler, exchange)

        return handle

    def _try(self, handler: Handler, exchange: Exchange) -> None:
        try:
            handler(exchange)
        except Wrong as wrong:
            exchange.reply(wrong.status, error(wrong.status, str(wrong), wrong.code))
        except (ValueError, KeyError, TypeError) as reason:
            exchange.reply(400, error(400, f"malformed: {reason}", "invalid_request_error"))

    def _keep(self, kind: str, content: bytes) -> str:
        name = f"{kind}-{next(self._numbers)}"
        self._files[name] = content
        return name

    def _file(self, name: str) -> bytes:
        if name not in self._files:
            raise Wrong(404, f"No such File object: {name}", "not_found")
        return self._files[name]

    def _batch(self, name: str) -> Batch:
        """As it stands now."""
        if name not in self._batches:
            raise Wrong(404, f"No batch found with id '{name}'.", "not_found")
        batch = self._batches[name]
        if batch.status == "in_progress" and time.time() - batch.created >= self._chat.faults.batch_seconds:
            self._finish(batch, batch.ends)
        return batch

    def _finish(self, batch: Batch, status: str) -> None:
        batch.status = status
        if status in NOT_BEGUN:
            return
        lines = Lines()
        for request in sorted(batch.requests, key=digest):
            self._work(batch, request, lines)
        batch.completed, batch.failed = len(lines.output), len(lines.errors)
        batch.output = self._keep("file", b"".join(lines.output)) if lines.output else None
        batch.errors = self._keep("file", b"".join(lines.errors)) if lines.errors else None

    def _work(self, batch: Batch, request: Json, lines: Lines) -> None:
        """One request of the file: left lying, refused, or answered as far as its fault lets it."""
        body, name = request["body"], request["custom_id"]
        faults, key, seed = self._chat.faults, draw.key(body), body.get("seed") or 0
        if draw.uniform(faults.seed, key, seed, batch.batch_id) >= faults.batch_answered:
            lines.errors += _left(name, batch.status)
            return
        entry = self._chat.journal.arrived()
        entry.key, entry.seed, entry.n = key, seed, body.get("n") or 1
        try:
            self._chat.check(body)
        except Wrong as wrong:
            self._chat.journal.finished(entry, wrong.status)
            lines.errors.append(_refused(name, wrong.status, error(wrong.status, str(wrong), wrong.code)))
            return
        entry.attempt = self._chat.journal.attempt(key, seed)
        fault = self._chat.fault(entry)
        if fault is not None and fault in REFUSALS:
            status = 429 if fault == "quota" else int(fault)
            self._chat.journal.finished(entry, status, fault)
            lines.errors.append(_refused(name, status, error(status, MESSAGES[fault], CODES.get(fault, fault))))
            return
        served = bare(self._chat.replies.completion(body, key), fault)
        entry.served = 0 if fault in (*LOST, *BROKEN) else len(served["choices"])
        self._chat.journal.finished(entry, 200, fault)
        lines.output += _brought(name, served, fault)


def bare(served: Json, fault: str | None) -> Json:
    """A completion without what the fault takes from it."""
    if fault in ("empty", "fields"):
        return {**served, "choices": []}
    if fault == "fewer":
        return {**served, "choices": served["choices"][: max(1, len(served["choices"]) // 2)]}
    return {name: value for name, value in served.items() if not (fault == "no_usage" and name == "usage")}


def _left(name: str, status: str) -> list[bytes]:
    """A request that the server didn't come to: an expired job says so, a completed one has lost it."""
    if status == "completed":
        return []
    failure = {"code": f"batch_{status}", "message": "This request could not be executed in time."}
    return [_line({"custom_id": name, "response": None, "error": failure})]


def _problem(code: str, message: str, line: int | None = None) -> Json:
    """Why a whole job fails."""
    return {"code": code, "message": message, "line": line, "param": None}


def _brought(name: str, served: Json, fault: str | None) -> Iterator[bytes]:
    response = {"status_code": 200, "request_id": served["id"], "body": served}
    line = _line({"id": served["id"], "custom_id": name, "response": response, "error": None})
    if fault in LOST:
        return
    yield line[: len(line) // 2] + b"\n" if fault in BROKEN else line
    if fault == "same_ids":
        yield line


def _refused(name: str, status: int, said: Json) -> bytes:
    return _line({"custom_id": name, "response": {"status_code": status, "body": said}, "error": None})


def _line(value: Json) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _requests(content: bytes) -> list[Json]:
    """Raises `Wrong` for a file that is not one of requests."""
    requests = [json.loads(line) for line in content.splitlines()]
    names = [request["custom_id"] for request in requests]
    if not requests or len(set(names)) < len(names):
        raise Wrong(400, "The file is empty or has a custom_id twice.", "duplicate_custom_id")
    return requests


def _uploaded(exchange: Exchange) -> bytes:
    """The file in a multipart form."""
    boundary = BOUNDARY.search(exchange.header("content-type"))
    for part in exchange.body.split(f"--{boundary[1]}".encode()) if boundary else ():
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return content.removesuffix(b"\r\n")
    raise Wrong(400, "a multipart form with a file is required", "invalid_request_error")
