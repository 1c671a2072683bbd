"""Where completions come from: an OpenAI-compatible endpoint as a frozen description, checked before work starts."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypedDict, Unpack, runtime_checkable
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from dsrl.errors import UserError
from dsrl.llm.request import Call, Request
from dsrl.llm.schema import response_format
from dsrl.model import Usage
from dsrl.part import Part, identify, part

MILLION = 1_000_000
OWN_FIELDS = {"model", "messages", "n", "seed", "stream", "response_format"}
"""Fields of the request body that dsrl itself fills in."""


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


@part
class Price(Part):
    """Dollars per million tokens."""

    input: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    """Price of input tokens that the endpoint found in its own cache; None: that of the others."""
    output: float = Field(ge=0)
    date: str
    """Day on which the price was looked up, as in 2026-11-20."""

    def cost(self, usage: Usage) -> float:
        """Dollars for what an endpoint says it has read and written."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input_tokens - usage.cached_tokens
        return (fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output) / MILLION


@part
class Endpoint(Part):
    """A model behind an OpenAI-compatible URL. The replies it gave are known by model, request and index: neither the
    address nor the key, the concurrency or the time-outs change what a reply is."""

    speed: ClassVar[frozenset[str]] = frozenset(
        ("base_url", "api_key_env", "takes_n", "price", "concurrency", "timeout", "max_retries", "backoff")
    )

    model: str
    """Id sent with every request. Two models must never share one: their replies would be taken for each other's."""
    base_url: str | None = None
    """None: that of `server`, or the public one of OpenAI."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, whose value is never written anywhere. None: no key."""
    server: Server | None = None
    """A server of our own, started at the first request of a run that the store cannot answer."""
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=4000, gt=0)
    """Longest reply, in tokens."""
    json_mode: Literal["schema", "object", "text"] = "schema"
    """What structured output the endpoint takes: a strict JSON schema, any JSON object, or words alone."""
    takes_n: bool = True
    """Whether one request may ask for several completions; otherwise each is a request of its own."""
    takes_seed: bool = True
    images: bool = False
    """Whether the model reads images; asked by the stages that have some to show."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request body (`top_k`, `reasoning_effort`); null takes a field out (`max_tokens: null`)."""
    price: Price | None = None
    """None: unknown, and so is every sum of dollars that contains it."""
    concurrency: int = Field(default=32, gt=0)
    """Most requests in flight."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that one HTTP request may take."""
    max_retries: int = Field(default=8, ge=0)
    """Times a request is repeated after a failure that may pass; then its completions are missing data."""
    backoff: float = Field(default=0.5, ge=0)
    """Seconds before the first repeat, doubled each time; an endpoint's own `Retry-After` goes before it."""

    def check(self) -> None:
        """Raises `UserError` for what would make every request fail and can be seen without a request."""
        if self.base_url is not None and self.server is not None:
            raise UserError(f"endpoint {self.model}: base_url and server exclude each other", next_step="keep one")
        if self.base_url is not None:
            _check_url(self.base_url)
        if self.base_url is None and self.server is None and self.api_key_env is None:
            raise UserError(
                f"endpoint {self.model}: neither base_url nor api_key_env is set",
                next_step="give the URL of a server, or name the variable that holds the key of the public one",
            )
        if taken := OWN_FIELDS & set(self.extra):
            raise UserError(
                f"endpoint {self.model}: extra may not hold {' '.join(sorted(taken))}",
                next_step="leave them out: dsrl fills them in",
            )
        self.api_key()

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
        messages: Iterable[Mapping[str, str]],
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
        body = {
            "messages": list(request.messages),
            "temperature": float(request.temperature),
            "top_p": float(request.top_p),
            "max_tokens": request.max_tokens,
            "response_format": request.schema and response_format(request.schema, self.json_mode),
            **self.extra,
        }
        body = {"model": self.model} | {key: value for key, value in body.items() if value is not None}
        return Call.of(body, identify(self.server))


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
