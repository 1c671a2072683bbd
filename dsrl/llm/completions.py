"""Parse the body of a chat completion response, or of an error response, into what dsrl uses."""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from dsrl.data.model import Reply, Usage
from dsrl.llm.failures import CallError, http_failure

MAX_MESSAGE = 500
BROKEN_OFF = ("error", "insufficient_system_resource")
"""Finish reasons with which OpenRouter and DeepSeek report a failure of their own servers."""
MAX_TITLE = 120
PAGE_START = 20_000
"""Characters of a web page that are searched for its title."""
TITLE, TAG = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE), re.compile(r"<[^<>]*>")
RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')


def replace_surrogates(text: Any) -> Any:
    """Replace unpaired surrogates, which a reply cut inside a character holds and which no file can store."""
    if not isinstance(text, str) or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def none_if_invalid(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Never lose a reply, which is paid for, because of a malformed field beside its text."""
    try:
        return read(value)
    except ValidationError:
        return None


Text = Annotated[str, BeforeValidator(replace_surrogates)]
Count = Annotated[Annotated[int, Field(ge=0)] | None, WrapValidator(none_if_invalid)]
Word = Annotated[str | None, WrapValidator(none_if_invalid)]


class ChatMessage(BaseModel):
    """The message of one choice."""

    content: Text | None = None
    refusal: Text | None = None


class ChatChoice(BaseModel):
    """One of the n completions in a response."""

    index: Count = None
    message: ChatMessage
    finish_reason: Word = None

    def reply(self, usage: Usage) -> Reply:
        if self.message.refusal and not self.message.content:
            return Reply(text=self.message.refusal, finish_reason="refusal", usage=usage)
        return Reply(text=self.message.content or "", finish_reason=self.finish_reason, usage=usage)


class PromptTokenDetails(BaseModel):
    """Part of `usage`."""

    cached_tokens: Count = None


class TokenCounts(BaseModel):
    """Tokens that the endpoint bills for one HTTP request (`usage`)."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: Annotated[PromptTokenDetails | None, WrapValidator(none_if_invalid)] = None
    prompt_cache_hit_tokens: Count = None
    """DeepSeek's name for `cached_tokens`."""

    @property
    def is_complete(self) -> bool:
        """Whether both prompt and reply are counted; otherwise the cost is unknown."""
        return self.prompt_tokens is not None and (self.completion_tokens, self.total_tokens) != (None, None)

    def usage(self) -> Usage:
        """The counts, 0 where missing. Gemini bills thoughts as output but counts them in the total only."""
        details = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        output, prompt = self.completion_tokens or 0, self.prompt_tokens or 0
        rest = 0 if self.prompt_tokens is None else (self.total_tokens or 0) - prompt
        cached = details or self.prompt_cache_hit_tokens or 0
        return Usage(input_tokens=prompt, cached_tokens=min(prompt, cached), output_tokens=max(output, rest))


class Completions(BaseModel):
    """The completions in one HTTP response."""

    choices: list[ChatChoice] = Field(min_length=1)
    usage: Annotated[TokenCounts | None, WrapValidator(none_if_invalid)] = None
    model: Word = None

    @property
    def billed(self) -> Usage | None:
        """Tokens of the prompt and all completions; None if the endpoint does not report both."""
        return self.usage.usage() if self.usage is not None and self.usage.is_complete else None

    def replies(self) -> list[Reply]:
        """Replies by index. The endpoint reports one usage for all: the prompt is booked on the first reply, the
        output is split in proportion to the lengths of the texts."""
        choices = sorted(self.choices, key=lambda choice: choice.index or 0)
        usage = self.usage.usage() if self.usage else Usage()
        shares = _split(usage.output_tokens, [len(choice.message.content or "") for choice in choices])
        first = Usage(input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens, output_tokens=shares[0])
        rest = [Usage(output_tokens=share) for share in shares[1:]]
        return [choice.reply(share) for choice, share in zip(choices, [first, *rest], strict=True)]


def _split(total: int, lengths: list[int]) -> list[int]:
    """Split `total` into integers proportional to length + 1 (so evenly if all lengths are 0)."""
    weights = [length + 1 for length in lengths]
    ends = [total * sum(weights[: end + 1]) // sum(weights) for end in range(len(weights))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def read_completions(content: bytes) -> Completions:
    """Parse a body that came with status 200. Raises `CallError` if it holds no completion."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unreadable(content, is_page(content[:MAX_MESSAGE].decode("utf-8", "replace"))) from error
    problem = value.get("error") if isinstance(value, dict) else None
    if isinstance(problem, dict) and isinstance(code := problem.get("code"), int) and 400 <= code <= 599:
        # some gateways answer 200 and put the status of the model's own server into the error
        raise http_failure(code, "", str(problem.get("message"))[:MAX_MESSAGE], {})
    try:
        completions = Completions.model_validate(value)
    except ValidationError as error:
        raise _unreadable(content, not isinstance(value, dict) or not {"choices", "error"} & value.keys()) from error
    if any(choice.finish_reason in BROKEN_OFF for choice in completions.choices):
        raise _unreadable(content, False)
    return completions


def _unreadable(content: bytes, foreign: bool) -> CallError:
    text = content[:PAGE_START].decode("utf-8", "replace")
    start = page_title(text) if is_page(text) else repr(text[:MAX_MESSAGE])
    return CallError("foreign" if foreign else "reply", f"not a chat completion: {start}")


def error_text(text: str) -> tuple[str, str]:
    """Code and message of an error body in OpenAI's or any other format."""
    if is_page(text):
        return "", page_title(text)
    try:
        error = json.loads(text)
    except ValueError:
        return "", text.strip()
    error = error[0] if isinstance(error, list) and error else error
    error = error.get("error", error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("code") or error.get("type") or ""), str(error.get("message", error))


def is_page(text: str) -> bool:
    """Whether the text is HTML or XML, with which no chat server answers."""
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def page_title(text: str) -> str:
    """`a web page: Log in`: its title, or else the start of its text."""
    text = text[:PAGE_START]
    title = TITLE.search(text)
    words = " ".join((title[1] if title and title[1].strip() else TAG.sub(" ", text)).split())
    return f"a web page: {words[:MAX_TITLE]}"


def requested_delay(text: str) -> float | None:
    """Seconds to wait that the body of a Google error requests."""
    found = RETRY_DELAY.search(text)
    return float(found[1]) if found else None
