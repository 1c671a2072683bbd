"""Where completions come from: an OpenAI-compatible endpoint as a frozen description, checked before work starts."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypedDict, Unpack, runtime_checkable
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from dsrl.core.component import Component, component, to_key_value
from dsrl.core.errors import UserError
from dsrl.llm.context_window import check_fit, paragraphs
from dsrl.llm.price import Price
from dsrl.llm.request import Call, Request
from dsrl.llm.structured.schema import JsonMode

__all__ = ["Endpoint", "Price", "Running", "SamplingDials", "Server"]

BATCH_WINDOW = 50_000
"""Requests that one batch file may hold, by OpenAI's own bound."""
TokenLimit = Literal["max_tokens", "max_completion_tokens"]
OWN_FIELDS = {"model", "messages", "n", "seed", "stream", "response_format"}
"""Fields of the request body that dsrl itself fills in."""
WHERE = ("base_url", "api_key_env", "headers", "price", "tried")
FORM = ("context", "token_limit", "json_mode", "takes_n", "takes_batch", "batch")
PACE = (
    *("concurrency", "requests_per_minute", "tokens_per_minute"),
    *("timeout", "max_retries", "backoff", "outage", "drain"),
)
SECRET_HEADERS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}


class Running(Protocol):
    """A server that has been started."""

    @property
    def url(self) -> str:
        """Base URL, ending in `/v1`."""

    def stop(self) -> None:
        """Ends the server and frees its port."""


@runtime_checkable
class Server(Protocol):
    """Describes a server that the run itself starts and stops."""

    def start(self) -> Running:
        """Returns once the server takes requests."""


class SamplingDials(TypedDict, total=False):
    """What a single request may set differently from its endpoint."""

    temperature: float
    top_p: float
    max_tokens: int


@component("llm.endpoint")
class Endpoint(Component):
    """A model behind an OpenAI-compatible URL. The replies it gave are known by model, request and index: neither the
    address nor the key, the concurrency or the time-outs change what a reply is."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({*WHERE, *FORM, *PACE})

    model: str
    """Id sent with every request. Two models must never share one: their replies would be taken for each other's."""
    base_url: str | None = None
    """None: that of `server`, or the public one of OpenAI."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, whose value is never written anywhere. None: no key."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further HTTP headers. They are written into run folders: no secrets."""
    server: Server | None = None
    """A server of our own, started at the first request of a run that the store cannot answer."""
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=4000, gt=0)
    """Longest reply, in tokens."""
    context: int | None = Field(default=None, gt=0)
    """Tokens of prompt and reply together that the model takes; None: unknown, and nothing is checked."""
    token_limit: TokenLimit = "max_tokens"  # noqa: S105
    """Name of the field that bounds the reply; reasoning models take the longer one alone."""
    takes_temperature: bool = True
    """Whether the model takes temperature and top_p; reasoning models refuse them."""
    json_mode: JsonMode = "schema"
    """What structured output the endpoint takes: a strict JSON schema, any JSON object, or text between tags. A refused
    one gives way to the next for the rest of the run. It is the way in which an object is asked for, not part of what
    is asked: a reply that was paid for in one way is found in every other."""
    takes_n: bool = True
    """Whether one request may ask for several completions; otherwise each is a request of its own."""
    takes_seed: bool = True
    takes_batch: bool = False
    """Whether the endpoint has `/v1/files` and `/v1/batches`."""
    batch: bool = False
    """Send all requests through them: cheaper and, within a day, as late as the provider likes."""
    images: bool = False
    """Whether the model reads images; asked by the stages that have some to show."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body (`top_k`, `reasoning_effort`); null takes a field out (`max_tokens: null`)."""
    price: Price | None = None
    """None: unknown, and so is every sum of dollars that contains it."""
    concurrency: int = Field(default=32, gt=0)
    """Most requests in flight."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """Ceiling besides `concurrency`; None: none."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Ceiling on prompt and reply together; None: none."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that one HTTP request may take."""
    max_retries: int = Field(default=8, ge=0)
    """Times a request is repeated after a failure that may pass; then its completions are missing data."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the first repeat, doubled each time; an endpoint's own `Retry-After` goes before it."""
    outage: float = Field(default=600.0, ge=0)
    """Seconds without any success after which the endpoint counts as down and the run stops."""
    drain: float = Field(default=3.0, ge=0)
    """Seconds that requests in flight get to come home when a run is stopped."""
    tried: str | None = None
    """Day on which these settings were last tried against the live provider; None: never."""

    @property
    def window(self) -> int:
        """Candidates that a stage keeps in flight."""
        return BATCH_WINDOW if self.batch else 2 * self.concurrency

    def check(self) -> None:
        """Raises `UserError` for what would make every request fail and can be seen without a request."""
        self._check_address()
        if self.batch and not self.takes_batch:
            raise UserError(
                f"endpoint {self.model}: batch=true, but it has no batch API (takes_batch is false)",
                next_step="leave batch=false, or set takes_batch=true if it offers /v1/files and /v1/batches",
            )
        if taken := OWN_FIELDS & set(self.extra):
            raise UserError(
                f"endpoint {self.model}: extra may not hold {' '.join(sorted(taken))}",
                next_step="leave them out: dsrl fills them in",
            )
        if secret := [name for name in self.headers if name.lower() in SECRET_HEADERS]:
            raise UserError(
                f"endpoint {self.model}: headers may not hold {secret[0]}",
                next_step="put the key into an environment variable and give its name as api_key_env",
            )
        self.api_key()

    def _check_address(self) -> None:
        if self.base_url is not None and self.server is not None:
            raise UserError(f"endpoint {self.model}: base_url and server exclude each other", next_step="keep one")
        if self.base_url is not None:
            _check_url(self.base_url)
        if self.base_url is None and self.server is None and self.api_key_env is None:
            raise UserError(
                f"endpoint {self.model}: neither base_url nor api_key_env is set",
                next_step="give the URL of a server, or name the variable that holds the key of the public one",
            )

    def check_prompt(
        self,
        messages: Iterable[Mapping[str, Any]] = (),
        max_tokens: int | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        """Raises `UserError` for a prompt that can't fit into `context`, naming its largest part: one of `parts`
        (name -> text), or else a paragraph of the messages."""
        if self.context is None:
            return
        limit = self.max_tokens if max_tokens is None else max_tokens
        check_fit(self.model, self.context, limit, parts or paragraphs(messages))

    def api_key(self) -> str:
        """The key out of the environment; `none` where no key is needed."""
        if self.api_key_env is None:
            return "none"
        value = os.environ.get(self.api_key_env, "").strip()
        if value:
            return value
        raise UserError(
            f"the key of {self.model} is missing: environment variable {self.api_key_env} is not set",
            next_step=f"export {self.api_key_env}=...   (the variable's name is the endpoint's api_key_env)",
        )

    def request(
        self,
        messages: Iterable[Mapping[str, Any]],
        schema: type[BaseModel] | None = None,
        **sampling: Unpack[SamplingDials],
    ) -> Request:
        """A request with this endpoint's sampling where none is given."""
        return Request(
            messages=tuple(dict(message) for message in messages),
            temperature=sampling.get("temperature", self.temperature),
            top_p=sampling.get("top_p", self.top_p),
            max_tokens=sampling.get("max_tokens", self.max_tokens),
            schema=schema,
        )

    def call(self, request: Request) -> Call:
        """What is sent for the request, and the identity of what comes back."""
        sampled = {"temperature": float(request.temperature), "top_p": float(request.top_p)}
        body = {
            "messages": list(request.messages),
            **(sampled if self.takes_temperature else {}),
            "max_tokens": request.max_tokens,
            **self.extra,
        }
        body = {"model": self.model} | {key: value for key, value in body.items() if value is not None}
        return Call.of(body, request.schema, self.json_mode, self.token_limit, to_key_value(self.server))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_url(url: str) -> None:
    if not _is_url(url):
        raise UserError(
            "base_url is not a URL",
            got=url,
            allowed="http:// or https://, a host, and mostly /v1",
            next_step="for example http://localhost:8000/v1",
        )
    if url.rstrip("/").endswith("/completions"):
        raise UserError(
            "base_url names a single method",
            got=url,
            allowed="the part before /chat/completions",
            next_step=f"base_url={url.rstrip('/').removesuffix('/chat/completions')}",
        )
