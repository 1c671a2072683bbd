"""The answer to one HTTP request, read as far as dsrl needs it."""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from dsrl.llm.failures import CallError, refused
from dsrl.model import Reply, Usage

LONGEST_MESSAGE = 500
BROKEN_OFF = ("error", "insufficient_system_resource")
"""What OpenRouter and DeepSeek give as the reason why a reply ended when their own machinery gave way."""
RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')


def whole(text: Any) -> Any:
    """Text without halves of surrogate pairs: a reply cut in the middle of a character has them, and no file does."""
    if not isinstance(text, str) or text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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
    total_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for the cached ones."""

    def usage(self) -> Usage:
        """Gemini bills thoughts as output, but says them in the total only."""
        details = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        said, rest = self.completion_tokens or 0, (self.total_tokens or 0) - self.prompt_tokens
        return Usage(
            input_tokens=self.prompt_tokens,
            cached_tokens=details or self.prompt_cache_hit_tokens or 0,
            output_tokens=max(said, rest),
        )


class Completions(BaseModel):
    """What an endpoint brought for one request."""

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


def read_completions(content: bytes) -> Completions:
    """The completions in a body that came with status 200; raises `CallError` where there are none."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unlike(content, content.lstrip().startswith(b"<")) from error
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
    try:
        error = json.loads(text)
    except ValueError:
        return "", text.strip()
    error = error[0] if isinstance(error, list) and error else error
    error = error.get("error", error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("code") or error.get("type") or ""), str(error.get("message", error))


def asked_pause(text: str) -> float | None:
    """Seconds to wait that an error body asks for, as those of Google do."""
    found = RETRY_DELAY.search(text)
    return float(found[1]) if found else None


def _is_status(code: object) -> bool:
    """Some gateways answer 200 and put the status of the model's own server into the error."""
    return isinstance(code, int) and 400 <= code <= 599


def _unlike(content: bytes, foreign: bool) -> CallError:
    start = content[:LONGEST_MESSAGE].decode("utf-8", "replace")
    return CallError("foreign" if foreign else "reply", f"not a chat completion: {start!r}")
