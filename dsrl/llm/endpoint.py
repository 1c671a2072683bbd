"""An OpenAI-compatible endpoint as a frozen component, checked before work starts."""

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

MAX_BATCH_REQUESTS = 50_000
"""OpenAI's limit on the requests in one batch file."""
TokenLimit = Literal["max_tokens", "max_completion_tokens"]
RESERVED_FIELDS = {"model", "messages", "n", "seed", "stream", "response_format"}
"""Fields of the request body that dsrl fills in."""
ADDRESS_FIELDS = ("base_url", "api_key_env", "headers", "price", "tried")
FORMAT_FIELDS = ("context", "token_limit", "json_mode", "takes_n", "takes_batch", "batch")
RATE_FIELDS = (
    *("concurrency", "requests_per_minute", "tokens_per_minute"),
    *("timeout", "max_retries", "backoff", "outage", "drain"),
)
SECRET_HEADERS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}


class RunningServer(Protocol):
    """A started server."""

    @property
    def url(self) -> str:
        """Base URL, ending in `/v1`."""

    def stop(self) -> None:
        """Stop the server and free its port."""


@runtime_checkable
class Server(Protocol):
    """Describes a server that the run starts and stops."""

    def start(self) -> RunningServer:
        """Return once the server accepts requests."""


class SamplingOptions(TypedDict, total=False):
    """Settings in which a single request may differ from its endpoint."""

    temperature: float
    top_p: float
    max_tokens: int


@component("llm.endpoint")
class Endpoint(Component):
    """A model behind an OpenAI-compatible URL. Replies are cached by model, request and index; address, key,
    concurrency and timeouts are not part of the cache key."""

    excluded_from_key: ClassVar[frozenset[str]] = frozenset({*ADDRESS_FIELDS, *FORMAT_FIELDS, *RATE_FIELDS})

    model: str
    """Id sent with every request. Two models must never share an id: they would share cached replies."""
    base_url: str | None = None
    """None uses `server`, or else OpenAI's public URL."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; its value is never written anywhere. None: no key."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further HTTP headers. They are written into run folders, so they must not hold secrets."""
    server: Server | None = None
    """A server that the run starts itself, at the first request that the reply cache cannot answer."""
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=4000, gt=0)
    """Longest reply in tokens."""
    context: int | None = Field(default=None, gt=0)
    """Tokens of prompt plus reply that the model takes; None: unknown, and lengths are not checked."""
    token_limit: TokenLimit = "max_tokens"  # noqa: S105
    """Name of the request field that bounds the reply; reasoning models take only `max_completion_tokens`."""
    takes_temperature: bool = True
    """Whether the model accepts temperature and top_p; reasoning models refuse them."""
    json_mode: JsonMode = "schema"
    """Structured output that the endpoint accepts: a strict JSON schema, any JSON object, or text between tags. A mode
    that it refuses is replaced by the next simpler one for the rest of the run. Not part of the cache key."""
    takes_n: bool = True
    """Whether one request may ask for several completions; otherwise one request is sent for each."""
    takes_seed: bool = True
    takes_batch: bool = False
    """Whether the endpoint offers `/v1/files` and `/v1/batches`."""
    batch: bool = False
    """Send all requests through the batch API: cheaper, and done within a day."""
    images: bool = False
    """Whether the model reads images."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body (`top_k`, `reasoning_effort`); null removes a field (`max_tokens: null`)."""
    price: Price | None = None
    """None: unknown, and so is every sum of dollars that includes it."""
    concurrency: int = Field(default=32, gt=0)
    """Maximum number of requests in flight."""
    requests_per_minute: int | None = Field(default=None, gt=0)
    """Rate limit in addition to `concurrency`; None: no limit."""
    tokens_per_minute: int | None = Field(default=None, gt=0)
    """Rate limit on prompt plus reply tokens; None: no limit."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds allowed for one HTTP request."""
    max_retries: int = Field(default=8, ge=0)
    """Retries of a request after a transient failure; after that its completions are missing data."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the first retry, doubled for each further one. `Retry-After` takes precedence."""
    outage: float = Field(default=600.0, ge=0)
    """Seconds without any success after which the endpoint counts as down and the run stops."""
    drain: float = Field(default=3.0, ge=0)
    """Seconds for which a stopping run waits for requests in flight."""
    tried: str | None = None
    """Date on which these settings were last tried against the live provider; None: never."""

    @property
    def window(self) -> int:
        """Number of candidates that a stage keeps in flight."""
        return MAX_BATCH_REQUESTS if self.batch else 2 * self.concurrency

    def check(self) -> None:
        """Raise `UserError` for settings with which every request would fail."""
        if self.base_url is not None:
            if self.server is not None:
                raise UserError(f"endpoint {self.model}: base_url and server exclude each other", next_step="keep one")
            _check_url(self.base_url)
        elif self.server is None and self.api_key_env is None:
            raise UserError(
                f"endpoint {self.model}: neither base_url nor api_key_env is set",
                next_step="give the URL of a server, or name the variable that holds the key of the public one",
            )
        if self.batch and not self.takes_batch:
            raise UserError(
                f"endpoint {self.model}: batch=true, but it has no batch API (takes_batch is false)",
                next_step="leave batch=false, or set takes_batch=true if it offers /v1/files and /v1/batches",
            )
        if reserved := RESERVED_FIELDS & set(self.extra):
            raise UserError(
                f"endpoint {self.model}: extra may not hold {' '.join(sorted(reserved))}",
                next_step="remove them: dsrl fills them in",
            )
        if secret := [name for name in self.headers if name.lower() in SECRET_HEADERS]:
            raise UserError(
                f"endpoint {self.model}: headers may not hold {secret[0]}",
                next_step="put the key into an environment variable and give its name as api_key_env",
            )
        self.api_key()

    def check_prompt(
        self,
        messages: Iterable[Mapping[str, Any]] = (),
        max_tokens: int | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        """Raise `UserError` for a prompt that cannot fit into `context`, naming its largest part: one of `parts`
        (name -> text), or else a paragraph of the messages."""
        if self.context is not None:
            limit = self.max_tokens if max_tokens is None else max_tokens
            check_fit(self.model, self.context, limit, parts or paragraphs(messages))

    def api_key(self) -> str:
        """The key from the environment; `none` if the endpoint needs no key. Raises `UserError` if it is not set."""
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
        **sampling: Unpack[SamplingOptions],
    ) -> Request:
        """A request with this endpoint's sampling settings as defaults."""
        return Request(
            messages=tuple(dict(message) for message in messages),
            temperature=sampling.get("temperature", self.temperature),
            top_p=sampling.get("top_p", self.top_p),
            max_tokens=sampling.get("max_tokens", self.max_tokens),
            schema=schema,
        )

    def call(self, request: Request) -> Call:
        """The body sent for the request, and the digest of its replies."""
        sampled = {"temperature": float(request.temperature), "top_p": float(request.top_p)}
        body = {
            "messages": list(request.messages),
            **(sampled if self.takes_temperature else {}),
            "max_tokens": request.max_tokens,
            **self.extra,
        }
        body = {"model": self.model} | {key: value for key, value in body.items() if value is not None}
        return Call.of(body, request.schema, self.json_mode, self.token_limit, to_key_value(self.server))


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, valid = urlsplit(""), False
    if parts.username or parts.password:
        raise UserError(
            "base_url may not contain an account: it is written into run folders",
            got=url.replace(parts.netloc, f"***@{parts.hostname}"),
            next_step="put the key into an environment variable and give its name as api_key_env",
        )
    if not valid:
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
