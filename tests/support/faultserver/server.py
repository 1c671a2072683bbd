"""The fault server: an aiohttp application on a public port, which may go down, and on a control port that stays up."""

import asyncio
import json
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from dsrl.core.errors import UserError
from tests.support.faultserver import draw
from tests.support.faultserver.answers import (
    DEFAULT_MODEL,
    Completions,
    count_prompt_tokens,
    last_message,
    token_limit,
)
from tests.support.faultserver.faults import BREAKAGES, HARMLESS, REFUSALS, Faults
from tests.support.faultserver.request_log import LogEntry, RequestLog

HOST = "127.0.0.1"
BACKLOG = 4096
MAX_BODY = 1 << 30
MAX_CHOICES = 128
QUOTA_SECONDS = 60.0
POLL_SECONDS = 0.01
"""Interval between checks of the outage schedule."""
TRICKLE_PIECES = 8
HTML = b"<!doctype html><html><head><title>Service</title></head><body><h1>Please come again later</h1></body></html>"
MESSAGES = {
    "429": "Rate limit reached: too many requests.",
    "quota": "You exceeded your current quota, please check your plan and billing details.",
    "500": "The server had an error while processing your request.",
    "502": "Bad gateway.",
    "503": "The engine is currently overloaded, please try again later.",
}
CODES = {"quota": "insufficient_quota", "429": "rate_limit_exceeded"}
FAULTS = TypeAdapter(Faults)


class RefusedRequest(Exception):
    """An error response that retries don't cure."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    def response(self) -> web.Response:
        return error_response(self.status, self.message, self.code)


def error_body(status: int, message: str, code: str) -> dict[str, Any]:
    """An error in OpenAI's format."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_response(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(error_body(status, message, code), status=status, headers=headers)


def refusal_status(fault: str) -> int:
    return 429 if fault == "quota" else int(fault)


class Admission:
    """Decides which requests are served: capacity, quota per minute, scheduled outages."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.in_service = 0
        self._admitted: deque[float] = deque()
        self.restart()

    def restart(self) -> None:
        """Set the server's age, on which schedules are based, back to 0."""
        self._started = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - self._started

    @property
    def capacity(self) -> int | None:
        past = [capacity for second, capacity in sorted(self.faults.schedule) if second <= self.age]
        return past[-1] if past else self.faults.capacity

    @property
    def outage(self) -> str | None:
        """`refuse` or `503` during an outage."""
        age = self.age
        scheduled = (outage.how for outage in self.faults.outages if outage.start <= age < outage.end)
        return self.faults.down or next(scheduled, None)

    def wait_seconds(self) -> float | None:
        """Seconds until the next request may be admitted; None: now."""
        if (capacity := self.capacity) is not None and self.in_service >= capacity:
            return self.faults.retry_after
        quota = self.faults.requests_per_minute
        if quota is None:
            return None
        now = time.monotonic()
        while self._admitted and self._admitted[0] <= now - QUOTA_SECONDS:
            self._admitted.popleft()
        if len(self._admitted) < quota:
            return None
        return self._admitted[0] + QUOTA_SECONDS - now if self._admitted else self.faults.retry_after

    def enter(self) -> None:
        self.in_service += 1
        if self.faults.requests_per_minute is not None:
            self._admitted.append(time.monotonic())


class Backend:
    """State and request handlers of a fault server."""

    def __init__(self, faults: Faults, log: Path | None = None) -> None:
        from tests.support.faultserver.batches import Batches

        self.faults = faults
        self.log = RequestLog(log)
        self.admission = Admission(faults)
        self.completions = Completions(faults)
        self.batches = Batches(self)
        self._script_position = 0

    def application(self) -> web.Application:
        """A new aiohttp application; several may share one backend."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.get("/v1/models", self.list_models),
                web.get("/v1/models/{name}", self.show_model),
                *self.batches.routes(),
                web.get("/log", self.show_log),
                web.get("/stats", self.show_stats),
                web.post("/control", self.control),
                web.route("*", "/{path:.*}", self.unknown),
            ]
        )
        return app

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer `/v1/chat/completions`."""
        entry = self.log.start()
        try:
            return await self._chat(request, entry)
        except RefusedRequest as refused:
            self.log.finish(entry, refused.status)
            return refused.response()
        except asyncio.CancelledError:  # the client disconnected
            self.log.finish(entry, 499, entry.fault)
            raise

    async def _chat(self, request: web.Request, entry: LogEntry) -> web.StreamResponse:
        self.check_key(request)
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise RefusedRequest(400, f"The body is not JSON: {error}", "invalid_json") from error
        self.check_body(body)
        entry.key, entry.seed, entry.n = draw.request_key(body), body.get("seed") or 0, body.get("n") or 1
        if self.admission.outage == "503":
            self.log.finish(entry, 503, "outage")
            return error_response(503, MESSAGES["503"], "outage")
        if (wait := self.admission.wait_seconds()) is not None:
            self.log.finish(entry, 429)
            return error_response(429, MESSAGES["429"], CODES["429"], self.retry_hint(wait))
        self.log.count_attempt(entry)
        fault = entry.fault = self.next_fault(entry)
        if fault in REFUSALS:
            status = refusal_status(fault)
            self.log.finish(entry, status, fault)
            headers = self.retry_hint(self.faults.retry_after) if fault == "429" else None
            return error_response(status, MESSAGES[fault], CODES.get(fault, "server_error"), headers)
        if fault == "hang":
            await forever()
        seconds = draw.service_seconds(self.faults, last_message(body))
        self.admission.enter()
        self.log.peak_in_service = max(self.log.peak_in_service, self.admission.in_service)
        try:
            if seconds:
                await asyncio.sleep(seconds)
        finally:
            self.admission.in_service -= 1
        try:
            completion = self.completions.build(body, entry.key)
        except ValueError as error:
            raise RefusedRequest(400, str(error), "invalid_request_error") from error
        damaged = damage_completion(completion, fault)
        if fault is None or fault in HARMLESS:
            entry.served, entry.service = len(damaged["choices"]), seconds
            self.log.prompt_tokens += completion["usage"]["prompt_tokens"]
            self.log.completion_tokens += completion["usage"]["completion_tokens"]
        self.log.finish(entry, 0 if fault in ("drop", "cut") else 200, fault)
        return await self._send(request, json.dumps(damaged).encode(), fault)

    async def _send(self, request: web.Request, content: bytes, fault: str | None) -> web.StreamResponse:
        """Send the body of a completion, with faults of the transport."""
        match fault:
            case "drop":
                await abort(request)
            case "cut":
                await send_pieces(request, content, [content[: len(content) // 2]], self.faults.slow)
                await abort(request)
            case "trickle":
                size = -(-len(content) // TRICKLE_PIECES)
                pieces = [content[at : at + size] for at in range(0, len(content), size)]
                return await send_pieces(request, content, pieces, self.faults.slow)
            case "truncated":
                content = content[: len(content) * 2 // 3]
            case "malformed":
                content = b"{'choices': [" + content[1:]
            case "html":
                return web.Response(body=HTML, content_type="text/html")
        return web.Response(body=content, content_type="application/json")

    def next_fault(self, entry: LogEntry) -> str | None:
        """The fault of this request. Every request takes one step of the script."""
        position, self._script_position = self._script_position, self._script_position + 1
        if position < len(self.faults.script):
            fault = self.faults.script[position]
            return None if fault == "ok" else fault
        kinds = (*REFUSALS, *BREAKAGES)
        return draw.pick_fault(self.faults.shares, kinds, self.faults.seed, entry.key, entry.seed, entry.attempt)

    def check_key(self, request: web.Request) -> None:
        if self.faults.key is not None and request.headers.get("Authorization") != f"Bearer {self.faults.key}":
            raise RefusedRequest(401, "Incorrect API key provided.", "invalid_api_key")

    def check_body(self, body: Any) -> None:
        """Raise `RefusedRequest` for a request that this server doesn't accept."""
        faults = self.faults
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise RefusedRequest(400, "messages: a list of at least one message is required", "invalid_request_error")
        for name, low, high in (("n", 1, MAX_CHOICES), ("seed", -(1 << 63), 1 << 63)):
            value = body.get(name)
            if value is not None and not (type(value) is int and low <= value <= high):
                raise RefusedRequest(400, f"{name}: an integer from {low} to {high} is required", "invalid_value")
        if not isinstance(body.get("response_format") or {}, dict):
            raise RefusedRequest(400, "response_format: an object is required", "invalid_type")
        if faults.models and body.get("model") not in faults.models:
            raise RefusedRequest(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")
        if body.get("stream"):
            raise RefusedRequest(400, "This server does not stream.", "unsupported_value")
        if (body.get("n") or 1) > 1 and not faults.takes_n:
            raise RefusedRequest(400, "n: only 1 is supported", "unsupported_value")
        form = (body.get("response_format") or {}).get("type", "text")
        if (form == "json_schema" and not faults.takes_schema) or (form != "text" and not faults.takes_json):
            text = f"response_format: {form} is not supported by this model"
            raise RefusedRequest(400, text, "unsupported_parameter")
        if faults.context is not None and count_prompt_tokens(messages) + (token_limit(body) or 0) > faults.context:
            text = f"This model's maximum context length is {faults.context} tokens; the request asks for more."
            raise RefusedRequest(400, text, "context_length_exceeded")

    def retry_hint(self, wait: float) -> dict[str, str]:
        match self.faults.hint:
            case "seconds":
                return {"Retry-After": str(math.ceil(wait) if wait > 1 else round(wait, 3))}
            case "milliseconds":
                return {"retry-after-ms": f"{1000 * wait:.0f}"}
            case "date":
                return {"Retry-After": formatdate(time.time() + wait, usegmt=True)}
        return {}

    async def list_models(self, _: web.Request) -> web.Response:
        names = self.faults.models or (DEFAULT_MODEL,)
        return web.json_response({"object": "list", "data": [describe_model(name) for name in names]})

    async def show_model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if self.faults.models and name not in self.faults.models:
            return error_response(404, f"The model '{name}' does not exist", "model_not_found")
        return web.json_response(describe_model(name))

    async def show_log(self, request: web.Request) -> web.Response:
        start = int(request.query.get("from", 0))
        return web.json_response([asdict(entry) for entry in self.log.entries[start:]])

    async def show_stats(self, _: web.Request) -> web.Response:
        gate = self.admission
        now = {"in_service": gate.in_service, "capacity": gate.capacity, "age": gate.age}
        return web.json_response({**self.log.stats(), **now})

    async def control(self, request: web.Request) -> web.Response:
        """Change faults. `clear: true` empties the log, `restart: true` sets the server's age to 0."""
        try:
            self._apply(json.loads(await request.read()))
        except (ValidationError, UserError, ValueError, TypeError) as error:
            return error_response(400, str(error), "invalid_control")
        return web.json_response({"ok": True})

    def _apply(self, changes: dict[str, Any]) -> None:
        clear, restart = changes.pop("clear", False), changes.pop("restart", False)
        faults = FAULTS.validate_json(json.dumps({**FAULTS.dump_python(self.faults, mode="json"), **changes}))
        self.completions = Completions(faults)
        if faults.script != self.faults.script:
            self._script_position = 0
        self.faults = self.admission.faults = faults
        if clear:
            self.log.clear()
        if restart:
            self.admission.restart()

    async def unknown(self, request: web.Request) -> web.Response:
        return error_response(404, f"Invalid URL ({request.method} {request.path})", "unknown_url")


class Port:
    """A port that can stop listening and start again, without another process taking it in between."""

    def __init__(self, app: web.Application, port: int = 0) -> None:
        """`port` 0: a free one. Raises `UserError` for a port in use."""
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        self._listener: asyncio.Server | None = None
        self._reservation = bind(port)  # bound but never listening: keeps the port reserved
        self.number: int = self._reservation.getsockname()[1]

    async def open(self) -> None:
        """Start listening unless it already does."""
        if self._listener is None:
            await self._runner.setup()
            assert self._runner.server is not None
            loop, sock = asyncio.get_running_loop(), bind(self.number)
            self._listener = await loop.create_server(self._runner.server, sock=sock, backlog=BACKLOG)

    def close(self) -> None:
        """Stop listening and abort all connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            assert self._runner.server is not None
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()


async def run(backend: Backend, port: int, on_start: Callable[[int, int], None]) -> None:
    """Serve until cancelled. Calls `on_start` with the public and the control port once they are open."""
    public, control = Port(backend.application(), port), Port(backend.application())
    await control.open()
    if backend.admission.outage != "refuse":
        await public.open()
    on_start(public.number, control.number)
    while True:
        if backend.admission.outage == "refuse":
            public.close()
        else:
            await public.open()
        await asyncio.sleep(POLL_SECONDS)


def bind(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
    except OSError as error:
        sock.close()
        raise UserError(
            f"port {port} is in use", got=error, next_step="use another port, or 0 for a free one"
        ) from error
    return sock


def damage_completion(completion: dict[str, Any], fault: str | None) -> dict[str, Any]:
    """The completion object without what the fault removes."""
    choices = completion["choices"]
    match fault:
        case "fields":
            return {"result": {"output": "fine"}, "status": "ok"}
        case "empty":
            return {**completion, "choices": []}
        case "fewer":
            return {**completion, "choices": choices[: max(1, len(choices) // 2)]}
        case "no_usage":
            return {name: value for name, value in completion.items() if name != "usage"}
        case "same_ids":
            return {**completion, "id": "chatcmpl-0", "choices": [{**choice, "index": 0} for choice in choices]}
    return completion


async def send_pieces(request: web.Request, content: bytes, pieces: list[bytes], pause: float) -> web.StreamResponse:
    """Announce `content`, then send the pieces with a pause after each."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(content))})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause)
    return response


async def abort(request: web.Request) -> None:
    """Close the connection without a response; aiohttp then cancels the handler."""
    if request.transport is not None:
        request.transport.abort()
    await forever()


async def forever() -> None:
    """Wait until the handler is cancelled, which aiohttp does when the connection is lost."""
    await asyncio.Event().wait()


def describe_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "dsrl"}
