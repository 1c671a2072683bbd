"""The answer to one HTTP request, read as far as dsrl needs it."""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from dsrl.data.model import Reply, Usage
from dsrl.llm.failures import CallError, refused

LONGEST_MESSAGE = 500
BROKEN_OFF = ("error", "insufficient_system_resource")
"""What OpenRouter and DeepSeek give as the reason why a reply ended when their own machinery gave way."""
LONGEST_TITLE = 120
PAGE_START = 20_000
"""Characters of a web page in which its title is looked for."""
TITLE, TAG = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE), re.compile(r"<[^<>]*>")
RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')


def whole(text: Any) -> Any:
    """Text without halves of surrogate pairs: a reply cut in the middle of a character has them, and no file does."""
    if not isinstance(text, str) or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def readable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """None for what can't be read: nothing beside the text of a reply is worth losing it, because it is paid for."""
    try:
        return read(value)
    except ValidationError:
        return None


Text = Annotated[str, BeforeValidator(whole)]
Count = Annotated[Annotated[int, Field(ge=0)] | None, WrapValidator(readable)]
Word = Annotated[str | None, WrapValidator(readable)]


class Message(BaseModel):
    """What a choice says."""

    content: Text | None = None
    refusal: Text | None = None


class Choice(BaseModel):
    """One of the n answers."""

    index: Count = None
    message: Message
    finish_reason: Word = None

    def reply(self, usage: Usage) -> Reply:
        if self.message.refusal and not self.message.content:
            return Reply(text=self.message.refusal, finish_reason="refusal", usage=usage)
        return Reply(text=self.message.content or "", finish_reason=self.finish_reason, usage=usage)


class CachedTokens(BaseModel):
    """Details of the prompt's tokens."""

    cached_tokens: Count = None


class Tokens(BaseModel):
    """Tokens that the endpoint bills for one HTTP request."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: Annotated[CachedTokens | None, WrapValidator(readable)] = None
    prompt_cache_hit_tokens: Count = None
    """DeepSeek's name for the cached ones."""

    @property
    def complete(self) -> bool:
        """Whether both the prompt and the reply are said: otherwise the cost is unknown."""
        return self.prompt_tokens is not None and (self.completion_tokens, self.total_tokens) != (None, None)

    def usage(self) -> Usage:
        """What is said; 0 for the rest. Gemini bills thoughts as output, but says them in the total only."""
        details = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        said, read = self.completion_tokens or 0, self.prompt_tokens or 0
        rest = 0 if self.prompt_tokens is None else (self.total_tokens or 0) - read
        cached = details or self.prompt_cache_hit_tokens or 0
        return Usage(input_tokens=read, cached_tokens=min(read, cached), output_tokens=max(said, rest))


class Completions(BaseModel):
    """What an endpoint brought for one request."""

    choices: list[Choice] = Field(min_length=1)
    usage: Annotated[Tokens | None, WrapValidator(readable)] = None
    model: Word = None

    @property
    def billed(self) -> Usage | None:
        """Tokens of the prompt and all replies; None where one of them isn't said."""
        return self.usage.usage() if self.usage is not None and self.usage.complete else None

    def replies(self) -> list[Reply]:
        """In the endpoint's order. It says one sum of tokens: the first reply bears the prompt, and each bears the
        output in proportion to its length."""
        choices = sorted(self.choices, key=lambda choice: choice.index or 0)
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


def read_completions(content: bytes) -> Completions:
    """The completions in a body that came with status 200; raises `CallError` where there are none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unlike(content, is_page(content[:LONGEST_MESSAGE].decode("utf-8", "replace"))) from error
    problem = value.get("error") if isinstance(value, dict) else None
    if isinstance(problem, dict) and _is_status(problem.get("code")):
        raise refused(int(problem["code"]), "", str(problem.get("message"))[:LONGEST_MESSAGE], {})
    try:
        completions = Completions.model_validate(value)
    except ValidationError as error:
        raise _unlike(content, not isinstance(value, dict) or not {"choices", "error"} & value.keys()) from error
    if any(choice.finish_reason in BROKEN_OFF for choice in completions.choices):
        raise _unlike(content, False)
    return completions


def error_text(text: str) -> tuple[str, str]:
    """Code and message of an error body in OpenAI's shape or any other."""
    if is_page(text):
        return "", page_words(text)
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
    """Whether it is HTML or XML, which no chat server answers with."""
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def page_words(text: str) -> str:
    """`a web page: Log in`: its title, or else how its text begins."""
    text = text[:PAGE_START]
    title = TITLE.search(text)
    words = " ".join((title[1] if title and title[1].strip() else TAG.sub(" ", text)).split())
    return f"a web page: {words[:LONGEST_TITLE]}"


def asked_pause(text: str) -> float | None:
    """Seconds to wait that an error body asks for, as those of Google do."""
    found = RETRY_DELAY.search(text)
    return float(found[1]) if found else None


def _is_status(code: object) -> bool:
    """Some gateways answer 200 and put the status of the model's own server into the error."""
    return isinstance(code, int) and 400 <= code <= 599


def _unlike(content: bytes, foreign: bool) -> CallError:
    text = content[:PAGE_START].decode("utf-8", "replace")
    start = page_words(text) if is_page(text) else repr(text[:LONGEST_MESSAGE])
    return CallError("foreign" if foreign else "reply", f"not a chat completion: {start}")
