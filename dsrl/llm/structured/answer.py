"""Replies as objects, with one repair turn for a reply that is not the requested object."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol

from pydantic import BaseModel

from dsrl import prompts
from dsrl.data.model import Reply
from dsrl.llm.request import Request
from dsrl.llm.structured.parse import Fields, ParseFailure, UnusableError, parse_object
from dsrl.llm.structured.schema import strict_schema

__all__ = ["Answer", "Fields", "ask_until_usable", "read_answer", "repair_message", "request_object"]

TEMPLATES = ("repair", "object", "tags")
"""Prompt templates that requests for objects may use; a stage that makes such requests lists them in `templates`."""
REPAIRABLE = ("not JSON", "wrong fields")
MAX_COMPLETIONS = 3
"""Completions requested if a stage cannot go on without a usable one."""


@dataclass(frozen=True)
class Answer(Generic[Fields]):
    """A structured reply, or the reason why there is none."""

    value: Fields | None
    error: ParseFailure | None
    detail: str
    """Description of the error; empty if there is a value."""
    calls: tuple[str, ...]
    """Ids of the completions from which it was parsed; two if it was repaired."""
    failures: tuple[ParseFailure, ...] = ()
    """What was wrong with each unusable completion."""


class Complete(Protocol):
    """`Client.complete`."""

    def __call__(self, request: Request, count: int = 1, first: int = 0) -> Awaitable[list[Reply]]: ...


async def request_object(complete: Complete, request: Request, schema: type[Fields], index: int) -> Answer[Fields]:
    """Completion `index` of the request as an object. If it is not JSON or has wrong fields, the model gets the error
    and one more turn; a refused, truncated or missing reply is not repaired."""
    (reply,) = await complete(request, first=index)
    answer = read_answer(reply, schema)
    if answer.error not in REPAIRABLE:
        return answer
    turn = ({"role": "assistant", "content": reply.text or "(empty)"}, repair_message(answer.detail, schema))
    (repaired,) = await complete(replace(request, messages=request.messages + turn), first=index)
    second = read_answer(repaired, schema)
    return replace(second, calls=answer.calls + second.calls, failures=answer.failures + second.failures)


async def ask_until_usable(
    ask: Callable[..., Awaitable[Any]], messages: list[dict[str, str]], schema: type[Fields], **sampling: float
) -> Answer[Fields]:
    """Completion 0 or, if that is unusable, 1 or 2, for a step that a stage cannot do without.

    Replies are cached, so running again would only return the unusable one again. `ask` is `Client.ask`.
    """
    for index in range(MAX_COMPLETIONS):
        answer: Answer[Fields] = await ask(messages, schema, index=index, **sampling)
        if answer.value is not None or answer.error == "no answer":
            break
    return answer


def repair_message(detail: str, schema: type[BaseModel]) -> dict[str, str]:
    text = prompts.render("repair", detail=detail, schema=json.dumps(strict_schema(schema)))
    return {"role": "user", "content": text}


def read_answer(reply: Reply, schema: type[Fields]) -> Answer[Fields]:
    """The object in a reply, or what is wrong with it."""
    try:
        if reply.text is None:
            raise UnusableError("no answer", reply.error or "the reply has no text")
        if reply.filtered:
            raise UnusableError("refused", reply.text or "the endpoint filtered the reply")
        if not reply.ended:
            raise UnusableError("truncated", f"the reply did not end: finish_reason={reply.finish_reason}")
        return Answer(parse_object(reply.text, schema), None, "", (reply.call,))
    except UnusableError as error:
        return Answer(None, error.kind, str(error), (reply.call,), (error.kind,))
