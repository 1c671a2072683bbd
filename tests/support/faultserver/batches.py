"""`/v1/files` and `/v1/batches`: jobs that are processed after some seconds, with the faults of single requests."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from aiohttp import web

from dsrl.core.digest import digest
from tests.support.faultserver import draw
from tests.support.faultserver.faults import REFUSALS
from tests.support.faultserver.server import (
    CODES,
    MESSAGES,
    RefusedRequest,
    damage_completion,
    error_body,
    error_response,
    refusal_status,
)

if TYPE_CHECKING:
    from tests.support.faultserver.server import Backend

NO_LINE = ("drop", "cut", "hang")
"""Faults whose request has no line in the results."""
BROKEN_LINE = ("truncated", "malformed", "html")
"""Faults whose line is cut in half."""
Json = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Batch:
    """A batch job."""

    id: str
    input_file: str
    metadata: Json
    created: float
    requests: list[Json]
    final_status: str
    status: str = "in_progress"
    output_file: str | None = None
    error_file: str | None = None
    completed: int = 0
    failed: int = 0
    problem: Json | None = None

    def to_json(self) -> Json:
        """The job as the API describes it."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "created_at": int(self.created),
            "input_file_id": self.input_file,
            "metadata": self.metadata,
            "status": self.status,
            "output_file_id": self.output_file,
            "error_file_id": self.error_file,
            "request_counts": {"total": len(self.requests), "completed": self.completed, "failed": self.failed},
            "errors": self.problem and {"object": "list", "data": [self.problem]},
        }


@dataclass
class Results:
    """Lines of a job's two result files."""

    output: list[bytes] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)


class Batches:
    """Handlers of files and jobs. A job is processed when somebody looks at it after `batch_seconds`."""

    def __init__(self, backend: "Backend") -> None:
        self._backend = backend
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Batch] = {}
        self._numbers = count(1)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files", self._guard(self.upload)),
            web.get("/v1/files/{id}/content", self._guard(self.download)),
            web.post("/v1/batches", self._guard(self.create)),
            web.get("/v1/batches", self._guard(self.list_page)),
            web.get("/v1/batches/{id}", self._guard(self.show)),
            web.post("/v1/batches/{id}/cancel", self._guard(self.cancel)),
        ]

    def _guard(self, handler: Handler) -> Handler:
        """Check the key and outages before the handler, and turn its exceptions into error responses."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                self._backend.check_key(request)
                if self._backend.admission.outage == "503":
                    return error_response(503, MESSAGES["503"], "outage")
                return await handler(request)
            except RefusedRequest as refused:
                return refused.response()
            except (ValueError, KeyError, TypeError) as error:
                return error_response(400, f"malformed: {error}", "invalid_request_error")

        return guarded

    async def upload(self, request: web.Request) -> web.Response:
        upload = (await request.post()).get("file")
        if not isinstance(upload, web.FileField):
            raise RefusedRequest(400, "a multipart form with a file is required", "invalid_request_error")
        content = upload.file.read()
        name = self._store(content)
        return web.json_response({"id": name, "object": "file", "bytes": len(content), "purpose": "batch"})

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(body=self._file(request.match_info["id"]), content_type="application/octet-stream")

    async def create(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        requests = parse_requests(self._file(body["input_file_id"]))
        faults, name = self._backend.faults, f"batch_{next(self._numbers)}"
        batch = Batch(name, body["input_file_id"], body.get("metadata") or {}, time.time(), requests, faults.batch_end)
        self._batches[name] = batch
        if faults.batch_most is not None and len(requests) > faults.batch_most:
            batch.final_status = "failed"
            batch.problem = job_problem("token_limit_exceeded", "Enqueued token limit reached.")
        elif batch.final_status == "failed":
            batch.problem = job_problem("invalid_request", "The file could not be validated.", line=1)
        return web.json_response(batch.to_json())

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(self._batch(request.match_info["id"]).to_json())

    async def list_page(self, request: web.Request) -> web.Response:
        """Jobs, newest first, in pages of `limit` after the job `after`."""
        names, after = list(reversed(self._batches)), request.query.get("after")
        start = names.index(after) + 1 if after in names else 0
        end = start + int(request.query.get("limit", 20))
        page = [self._batch(name).to_json() for name in names[start:end]]
        return web.json_response({"object": "list", "data": page, "has_more": end < len(names)})

    async def cancel(self, request: web.Request) -> web.Response:
        batch = self._batch(request.match_info["id"])
        if batch.status == "in_progress":
            self._finish(batch, "cancelled")
        return web.json_response(batch.to_json())

    def _store(self, content: bytes) -> str:
        name = f"file-{next(self._numbers)}"
        self._files[name] = content
        return name

    def _file(self, name: str) -> bytes:
        if name not in self._files:
            raise RefusedRequest(404, f"No such File object: {name}", "not_found")
        return self._files[name]

    def _batch(self, name: str) -> Batch:
        """The job, processed if its time has come."""
        if name not in self._batches:
            raise RefusedRequest(404, f"No batch found with id '{name}'.", "not_found")
        batch = self._batches[name]
        if batch.status == "in_progress" and time.time() - batch.created >= self._backend.faults.batch_seconds:
            self._finish(batch, batch.final_status)
        return batch

    def _finish(self, batch: Batch, status: str) -> None:
        batch.status = status
        if status == "failed":
            return
        results = Results()
        for request in sorted(batch.requests, key=digest):
            self._process(batch, request, results)
        batch.completed, batch.failed = len(results.output), len(results.errors)
        batch.output_file = self._store(b"".join(results.output)) if results.output else None
        batch.error_file = self._store(b"".join(results.errors)) if results.errors else None

    def _process(self, batch: Batch, request: Json, results: Results) -> None:
        """Answer one request of the job, or leave it out, as its faults say."""
        backend, body, name = self._backend, request["body"], request["custom_id"]
        key, seed = draw.request_key(body), body.get("seed") or 0
        if draw.uniform(backend.faults.seed, key, seed, batch.id) >= backend.faults.batch_answered:
            if batch.status != "completed":  # a completed job has simply lost the request
                error = {"code": f"batch_{batch.status}", "message": "This request could not be executed in time."}
                results.errors.append(json_line({"custom_id": name, "response": None, "error": error}))
            return
        entry = backend.log.start()
        entry.key, entry.seed, entry.n = key, seed, body.get("n") or 1
        try:
            backend.check_body(body)
        except RefusedRequest as refused:
            backend.log.finish(entry, refused.status)
            results.errors.append(refused_line(name, refused))
            return
        backend.log.count_attempt(entry)
        fault = backend.next_fault(entry)
        if fault in REFUSALS:
            status = refusal_status(fault)
            backend.log.finish(entry, status, fault)
            refused = RefusedRequest(status, MESSAGES[fault], CODES.get(fault, fault))
            results.errors.append(refused_line(name, refused))
            return
        completion = backend.completions.build(body, key)
        if fault != "same_ids":  # here the line itself comes twice
            completion = damage_completion(completion, "empty" if fault == "fields" else fault)
        entry.served = 0 if fault in (*NO_LINE, *BROKEN_LINE) else len(completion["choices"])
        backend.log.finish(entry, 200, fault)
        response = {"status_code": 200, "request_id": completion["id"], "body": completion}
        line = json_line({"id": completion["id"], "custom_id": name, "response": response, "error": None})
        if fault in BROKEN_LINE:
            line = line[: len(line) // 2] + b"\n"
        if fault not in NO_LINE:
            results.output += [line, line] if fault == "same_ids" else [line]


def parse_requests(content: bytes) -> list[Json]:
    """Requests of an input file. Raises `RefusedRequest` for an empty file or a repeated custom_id."""
    requests = [json.loads(line) for line in content.splitlines()]
    names = [request["custom_id"] for request in requests]
    if not requests or len(set(names)) < len(names):
        raise RefusedRequest(400, "The file is empty or has a custom_id twice.", "duplicate_custom_id")
    return requests


def job_problem(code: str, message: str, line: int | None = None) -> Json:
    """The reason for which a whole job fails."""
    return {"code": code, "message": message, "line": line, "param": None}


def refused_line(name: str, refused: RefusedRequest) -> bytes:
    body = error_body(refused.status, refused.message, refused.code)
    response = {"status_code": refused.status, "body": body}
    return json_line({"custom_id": name, "response": response, "error": None})


def json_line(value: Json) -> bytes:
    return json.dumps(value).encode() + b"\n"
