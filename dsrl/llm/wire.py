"""The one place that speaks HTTP: a request body goes out, completions or a `CallError` come back."""

import asyncio
import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from dsrl.errors import UserError
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, refused
from dsrl.model import Reply, Usage

CONNECT_SECONDS = 30.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_MESSAGE = 500


def whole(text: Any) -> Any:
    """Text without halves of surrogate pairs: a reply cut in the middle of a character has them, and no file does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(whole)]


class Message(BaseModel):
    """What a choice says."""

    content: Text | None = None
    refusal: Text | None = None


class Choice(BaseModel):
    """One of the n answers."""

    index: int = 0
    message: Message
    finish_reason: str | None = None

    def reply(self, usage: Usage) -> Reply:
        if self.message.refusal and not self.message.content:
            return Reply(text=self.message.refusal, finish_reason="refusal", usage=usage)
        return Reply(text=self.message.content or "", finish_reason=self.finish_reason, usage=usage)


class CachedTokens(BaseModel):
    """Details of the prompt's tokens."""

    cached_tokens: int | None = None


class Tokens(BaseModel):
    """Tokens that the endpoint bills for one HTTP request."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: CachedTokens | None = None

    def usage(self) -> Usage:
        cached = self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens
        return Usage(
            input_tokens=self.prompt_tokens, cached_tokens=cached or 0, output_tokens=self.completion_tokens or 0
        )


class Completions(BaseModel):
    """The answer to one HTTP request, as far as dsrl reads it."""

    choices: list[Choice] = Field(min_length=1)
    usage: Tokens | None = None
    model: str | None = None

    def replies(self) -> list[Reply]:
        """In the endpoint's order. It says one sum of tokens: the first reply bears the prompt, and each bears the
        output in proportion to its length."""
        choices = sorted(self.choices, key=lambda choice: choice.index)
        usage = self.usage.usage() if self.usage else Usage()
        shares = _shares(usage.output_tokens, [len(choice.message.content or "") for choice in choices])
        first = Usage(input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens, output_tokens=shares[0])
        rest = [Usage(output_tokens=share) for share in shares[1:]]
        return [choice.reply(share) for choice, share in zip(choices, [first, *rest], strict=True)]


def _shares(total: int, weights: list[int]) -> list[int]:
    """Whole numbers that sum up to `total`, in proportion to the weights (evenly where all are 0)."""
    weights = [weight + 1 for weight in weights]
    ends = [total * sum(weights[: end + 1]) // sum(weights) for end in range(len(weights))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


class Wire:
    """A pool of connections to one endpoint, as wide as its concurrency. Made inside an event loop."""

    def __init__(self, endpoint: Endpoint, url: str | None) -> None:
        import httpx2
        from openai import AsyncOpenAI

        width = endpoint.concurrency
        seconds = httpx2.Timeout(endpoint.timeout, connect=min(CONNECT_SECONDS, endpoint.timeout), pool=None)
        local = url is not None and httpx2.URL(url).host in LOOPBACK
        http = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=width, max_keepalive_connections=width),
            timeout=seconds,
            follow_redirects=True,
            trust_env=not local,
        )
        self._seconds = endpoint.timeout
        self._key = endpoint.api_key()
        self._client = AsyncOpenAI(api_key=self._key, base_url=url, max_retries=0, timeout=seconds, http_client=http)
        self.url = str(self._client.base_url)

    async def send(self, body: dict[str, Any]) -> Completions:
        """One HTTP request, never repeated here."""
        import httpx2
        import openai

        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=body)
        except openai.APIStatusError as error:
            raise self._refused(error.response) from error
        except (TimeoutError, openai.APIConnectionError) as error:
            raise self._unanswered(error) from error
        return _completions(answer.content)

    async def close(self) -> None:
        await self._client.close()

    def _refused(self, answer: Any) -> CallError:
        code, message = _error_text(answer.text)
        message = message.replace(self._key, "***") if self._key != "none" else message
        return refused(answer.status_code, code, message[:LONGEST_MESSAGE], answer.headers)

    def _unanswered(self, error: Exception) -> CallError:
        import httpx2

        cause = error.__cause__
        if isinstance(cause, (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError)):
            raise UserError(f"no request can be sent to {self.url}", got=cause, next_step="check base_url and the key")
        if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            return CallError("unreachable", str(cause) or type(cause).__name__)
        if isinstance(error, TimeoutError) or isinstance(cause, httpx2.TimeoutException):
            return CallError("timeout", f"no answer within {self._seconds:g} s")
        return CallError("connection", str(cause) or type(cause).__name__)


def _completions(content: bytes) -> Completions:
    try:
        return Completions.model_validate(json.loads(content))
    except (ValidationError, ValueError, RecursionError) as error:
        start = content[:LONGEST_MESSAGE].decode("utf-8", "replace")
        raise CallError("reply", f"not a chat completion: {start!r}") from error


def _error_text(text: str) -> tuple[str, str]:
    """Code and message of an error body in OpenAI's shape or any other."""
    try:
        error = json.loads(text)
    except ValueError:
        return "", text.strip()
    error = error.get("error", error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("code") or error.get("type") or ""), str(error.get("message", error))
