"""Parse the body of a chat completion response, or of an error response, into what dsrl uses."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from dsrl.core.text import replace_controls
from dsrl.data.model import Reply, Usage
from dsrl.llm.failures import CallError, http_failure

MAX_MESSAGE = 500
MAX_COUNT = 10**12
"""Token counts and indices above it are garbage."""
MAX_DEPTH = 5
NESTED_FIELDS = ("metadata", "details", "detail", "innererror", "inner_error", "raw", "failed_generation")
DECODER = json.JSONDecoder(strict=False)
ESCAPE = re.compile(r'\\(?P<valid>["\\/bfnrt]|u[0-9a-fA-F]{4})?')
MAX_TITLE = 120
SHOWN = 80
PAGE_START = 20_000
"""Characters of a web page that are searched for its title."""
TITLE, TAG = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE), re.compile(r"<[^<>]*>")
RETRY_DELAY = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')


def none_if_invalid(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """Never lose a reply, which is paid for, because of a malformed field beside its text."""
    try:
        return read(value)
    except ValidationError:
        return None


def message_text(value: Any) -> Any:
    """The text of a message's content, which some providers send as a list of parts or as a JSON value."""
    if isinstance(value, list):
        texts = [part if isinstance(part, str) else _mapping(part).get("text") for part in value]
        value = "".join(text for text in texts if isinstance(text, str))
    elif isinstance(value, (dict, int, float)):
        value = json.dumps(value, ensure_ascii=False)
    return replace_controls(value) if isinstance(value, str) else value


Text = Annotated[Annotated[str, BeforeValidator(message_text)] | None, WrapValidator(none_if_invalid)]
Count = Annotated[Annotated[int, Field(ge=0, le=MAX_COUNT)] | None, WrapValidator(none_if_invalid)]
Word = Annotated[str | None, WrapValidator(none_if_invalid)]


class ToolFunction(BaseModel):
    """Part of a tool call."""

    arguments: Text = None


class ToolCall(BaseModel):
    """Proxies that implement a schema by a forced tool put the object into its arguments."""

    function: Annotated[ToolFunction | None, WrapValidator(none_if_invalid)] = None


class ChatMessage(BaseModel):
    """The message of one choice."""

    content: Text = None
    refusal: Text = None
    reasoning_content: Text = None
    tool_calls: Annotated[list[ToolCall] | None, WrapValidator(none_if_invalid)] = None

    @property
    def text(self) -> str:
        """The content; without any, an object that was put into a tool call or, by some reasoning parsers of vLLM, as
        a whole into `reasoning_content`. Other reasoning is thoughts, and never an answer."""
        if self.content and self.content.strip():
            return self.content
        for call in self.tool_calls or ():
            if call.function is not None and call.function.arguments:
                return call.function.arguments
        reasoning = (self.reasoning_content or "").strip()
        return reasoning if reasoning.startswith("{") and reasoning.endswith("}") else ""


class ChatChoice(BaseModel):
    """One of the n completions in a response."""

    index: Count = None
    message: Annotated[ChatMessage, BeforeValidator(lambda value: {} if value is None else value)]
    finish_reason: Word = None

    def reply(self, usage: Usage) -> Reply:
        if self.message.refusal and not self.message.text:
            return Reply(text=self.message.refusal, finish_reason="refusal", usage=usage)
        return Reply(text=self.message.text, finish_reason=self.finish_reason, usage=usage)


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
        """Whether both prompt and reply are counted; otherwise the cost is unknown. Some servers report zeros."""
        return bool(self.prompt_tokens) and bool(self.completion_tokens or self.total_tokens)

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
        shares = _split(usage.output_tokens, [len(choice.message.text) for choice in choices])
        first = Usage(input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens, output_tokens=shares[0])
        rest = [Usage(output_tokens=share) for share in shares[1:]]
        return [choice.reply(share) for choice, share in zip(choices, [first, *rest], strict=True)]


def _split(total: int, lengths: list[int]) -> list[int]:
    """Split `total` into integers proportional to length + 1 (so evenly if all lengths are 0)."""
    sums = list(itertools.accumulate(length + 1 for length in lengths))
    ends = [total * partial // sums[-1] for partial in sums]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def read_completions(content: bytes) -> Completions:
    """Parse a body that came with status 200. Raises `CallError` if it holds no usable completion.

    Such a body is billed, so the error carries the usage that it reports.
    """
    text = content.decode("utf-8", "replace").strip("\ufeff\0 \t\r\n")
    value = _read_event_stream(text) if text.startswith(("data:", "event:", ":")) else _read_json(text)
    if value is None:
        is_generated = text.startswith("{") and '"choices"' in text
        raise _unreadable(text, foreign=is_page(text) or text == "null", billed=is_generated)
    problem = value.get("error") if isinstance(value, dict) else None
    if isinstance(problem, dict) and isinstance(code := problem.get("code"), int) and 400 <= code <= 599:
        # some gateways answer 200 and put the status of the model's own server into the error
        raise http_failure(code, "", _error_message(problem), {})
    usage = _reported_usage(value)
    try:
        completions = Completions.model_validate(value)
    except ValidationError as error:
        foreign = not isinstance(value, dict) or not {"choices", "error"} & value.keys()
        billed = usage is not None or bool(_mapping(value).get("choices"))
        raise _unreadable(text, foreign=foreign, billed=billed, usage=usage) from error
    if broken := next((choice for choice in completions.choices if not _has_known_end(choice)), None):
        start = broken.message.text[:SHOWN]
        message = f"the reply was broken off (finish_reason={broken.finish_reason}): {start!r}"
        raise CallError("reply", message, billed=True, usage=usage)
    return completions


def _has_known_end(choice: ChatChoice) -> bool:
    reply = choice.reply(Usage())
    return reply.ended or reply.truncated or reply.filtered


def _reported_usage(value: object) -> Usage | None:
    try:
        counts = TokenCounts.model_validate(_mapping(value).get("usage"))
    except ValidationError:
        return None
    return counts.usage() if counts.is_complete else None


def _read_json(text: str) -> Any:
    """The first JSON value in a body, read tolerantly: raw line breaks in strings, invalid escapes, trailing data."""
    try:
        return DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        pass  # once more with every invalid escape doubled
    try:
        return DECODER.raw_decode(ESCAPE.sub(lambda found: found[0] if found["valid"] else "\\\\", text))[0]
    except (ValueError, RecursionError):
        return None


def _read_event_stream(text: str) -> Any:
    """The completion that a gateway streamed although it was not asked to."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        event = _mapping(_read_json(line.removeprefix("data:").strip())) if line.startswith("data:") else {}
        whole |= {name: event[name] for name in ("model", "usage", "error") if event.get(name) is not None}
        for choice in event.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            number = choice.get("index")
            index = number if isinstance(number, int) else 0
            merged = choices.setdefault(index, {"index": index, "message": {"content": []}})
            part = _mapping(choice.get("delta") or choice.get("message")).get("content")
            merged["message"]["content"].append(message_text(part) or "")
            merged["finish_reason"] = choice.get("finish_reason") or merged.get("finish_reason")
    for merged in choices.values():
        if merged["finish_reason"] is None:  # the connection ended first
            merged["finish_reason"] = "broken off"
    return {**whole, "choices": list(choices.values())} if choices else whole or None


def _unreadable(text: str, *, foreign: bool, billed: bool, usage: Usage | None = None) -> CallError:
    start = page_title(text) if is_page(text) else repr(text[:MAX_MESSAGE])
    return CallError("foreign" if foreign else "reply", f"not a chat completion: {start}", billed=billed, usage=usage)


def error_text(text: str) -> tuple[str, str]:
    """Code and message of an error body in OpenAI's or any other format."""
    if is_page(text):
        return "", page_title(text)
    try:
        error = json.loads(text)
    except (ValueError, RecursionError):
        return "", text.strip()
    error = error[0] if isinstance(error, list) and error else error
    error = error.get("error", error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("code") or error.get("type") or ""), _error_message(error)


def _error_message(error: Mapping[str, Any]) -> str:
    """The message, followed by what gateways nest below it: `metadata.raw`, `details`, `innererror`."""
    message = str(error.get("message", error))
    for text in _nested_strings({name: value for name, value in error.items() if name in NESTED_FIELDS}):
        if text not in message:
            message = f"{message}: {text}"
    return message[:MAX_MESSAGE]


def _nested_strings(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        inner = _read_json(value) if value.lstrip().startswith("{") else None
        if isinstance(inner, dict) and depth < MAX_DEPTH:
            yield from _nested_strings(inner, depth + 1)
        elif " " in value or "_" in value:
            yield value
    elif isinstance(value, (dict, list)) and depth < MAX_DEPTH:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _nested_strings(item, depth + 1)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


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
