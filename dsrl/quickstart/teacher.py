"""The quickstart's teacher: `dsrl.quickstart.rules` behind a local OpenAI-compatible server."""

import base64
import hashlib
import json
import random
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from dsrl.core.component import Component, component
from dsrl.quickstart.rules import ErrorRates, TeacherReply, reply
from dsrl.quickstart.visual import rules as visual

MODEL = "offline-rules-v1"
DATA_URL = r"^data:image/(?:png|jpeg);base64,"
Share = Annotated[float, Field(ge=0, le=1)]
Body = Mapping[str, Any]


@component("quickstart.offline_teacher")
class OfflineTeacher(Component):
    """A rule-based program instead of a language model: it invents, rewrites and solves counting stories, and reads
    images of coloured shapes, with a share of errors."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"busy", "latency"})

    wrong: Share = 0.06
    """Share of solutions with a slip in one step, drawn for each reply independently, so that votes have work to do."""
    unparsable: Share = 0.03
    """Share of votes that break off without an answer."""
    busy: Share = 0.01
    """Share of HTTP requests answered 429 with `Retry-After`; depends on their order, not on their content."""
    latency: float = Field(default=0.0, ge=0)
    """Seconds before each reply."""
    seed: int = 0
    """Another seed gives other replies of the same quality."""

    def start(self) -> "RunningTeacher":
        """Serve on a free loopback port until stopped."""
        server = TeacherServer(("127.0.0.1", 0), partial(RequestHandler, self, count()))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        return RunningTeacher(server, thread)

    def choice(self, body: Body, index: int) -> TeacherReply:
        """Choice `index` of a request, drawn from its seed plus index as vLLM does: the completions of a request do not
        depend on how they are split into calls."""
        request = ChatRequest.model_validate(body)
        content = {key: value for key, value in body.items() if key not in ("n", "seed")}
        choice_seed = 0 if request.temperature == 0 else (request.seed or 0) + index
        name = json.dumps([self.seed, content, choice_seed], sort_keys=True)
        rng = random.Random(hashlib.sha256(name.encode()).digest())
        rates = ErrorRates(self.wrong, self.unparsable)
        if request.images:
            return visual.reply(request.user, request.images, request.keys, rates, rng)
        return reply(request.user, request.keys, rates, rng)


@dataclass(frozen=True)
class RunningTeacher:
    server: ThreadingHTTPServer
    thread: threading.Thread = field(repr=False)

    @property
    def url(self) -> str:
        """Base URL for an OpenAI client."""
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def stop(self) -> None:
        """Close the port; may be called twice."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    url: str = Field(pattern=DATA_URL)
    """A data URL: the teacher fetches nothing."""

    @field_validator("url")
    @classmethod
    def _check_base64(cls, value: str) -> str:
        base64.b64decode(value.partition(",")[2], validate=True)
        return value

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.url.partition(",")[2])


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | ImagePart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(self._parts(TextPart, "text"))

    @property
    def images(self) -> list[bytes]:
        return [] if isinstance(self.content, str) else [url.data for url in self._parts(ImagePart, "image_url")]

    def _parts(self, kind: type[BaseModel], name: str) -> list[Any]:
        return [getattr(part, name) for part in self.content if isinstance(part, kind)]


class ChatRequest(BaseModel):
    """The part of a chat completion request that is used; other keys are accepted and ignored, as by other servers."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    n: int = Field(default=1, ge=1, le=128)
    temperature: float = Field(default=1.0, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    stream: Literal[False] | None = None

    @property
    def user(self) -> list[str]:
        return [message.text for message in self.messages if message.role == "user"] or [self.messages[-1].text]

    @property
    def images(self) -> list[bytes]:
        return [data for message in self.messages if message.role == "user" for data in message.images]

    @property
    def keys(self) -> frozenset[str]:
        """The properties of the requested JSON schema; empty for free text."""
        schema = ((self.response_format or {}).get("json_schema") or {}).get("schema") or {}
        return frozenset(schema.get("properties") or ())

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class TeacherServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that stop (budget, Ctrl-C) and disconnect in the middle of a reply."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class RequestHandler(BaseHTTPRequestHandler):
    """One client connection. Buffered writes send one packet per reply, which avoids waiting for delayed ACKs."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def __init__(self, teacher: OfflineTeacher, counter: "count[int]", *args: Any) -> None:
        self.teacher, self.counter = teacher, counter
        super().__init__(*args)

    def log_message(self, *args: object) -> None:
        """Log nothing: the run logs its calls itself."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "dsrl"}
            self.send(200, {"object": "list", "data": [model]})
        else:
            self.fail(404, f"no such path: {self.path}", "not_found")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/v1/chat/completions":
            self.fail(404, f"no such path: {self.path}", "not_found")
            return
        try:
            body = json.loads(raw)
            request = ChatRequest.model_validate(body)
        except ValueError as error:
            self.fail(400, f"malformed request: {error}", "invalid_request")
        else:
            self.answer(body, request)

    def answer(self, body: Body, request: ChatRequest) -> None:
        number = next(self.counter)
        if request.model != MODEL:
            self.fail(404, f"the model {request.model!r} does not exist; this server has {MODEL}", "model_not_found")
        elif random.Random(f"{self.teacher.seed} {number}").random() < self.teacher.busy:
            self.fail(429, "too many requests", "rate_limit_exceeded", {"Retry-After": "0.05"})
        else:
            time.sleep(self.teacher.latency)
            self.send(200, completion(self.teacher, body, request, number))

    def fail(self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> None:
        kind = "rate_limit_error" if status == 429 else "invalid_request_error"
        self.send(status, {"error": {"message": message, "type": kind, "param": None, "code": code}}, headers)

    def send(self, status: int, payload: Body, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(payload).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def completion(teacher: OfflineTeacher, body: Body, request: ChatRequest, number: int) -> dict[str, Any]:
    """A `chat.completion` object with all choices."""
    choices = [_choice(teacher.choice(body, index), request.limit, index) for index in range(request.n)]
    messages = [choice["message"] for choice in choices]
    prompt_tokens = sum(len(tokens(message.text)) for message in request.messages)
    completion_tokens = sum(len(tokens(message["content"] or message["refusal"])) for message in messages)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": choices,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _choice(reply: TeacherReply, limit: int | None, index: int) -> dict[str, Any]:
    content, spans = reply.content, tokens(reply.content or "")
    truncated = limit is not None and len(spans) > limit
    if truncated and content is not None and limit is not None:
        content = content[: spans[limit - 1].end()]
    message = {"role": "assistant", "content": content, "refusal": reply.refusal}
    return {"index": index, "message": message, "finish_reason": "length" if truncated else "stop", "logprobs": None}


def tokens(text: str) -> list[re.Match[str]]:
    """Words and punctuation marks: the tokens of this teacher's usage counts."""
    return list(re.finditer(r"\w+|[^\w\s]", text))
