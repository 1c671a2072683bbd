"""Replies as objects: one that isn't the object asked for goes back to the model once."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol

from pydantic import BaseModel

from dsrl import prompts
from dsrl.data.model import Reply
from dsrl.llm.request import Request
from dsrl.llm.structured.parse import Failure, Fields, UnusableError, parse
from dsrl.llm.structured.schema import strict_schema

__all__ = ["Answer", "Complete", "Fields", "read", "repair_message", "structured", "usable"]

TEMPLATES = ("repair", "object", "tags")
"""Prompt templates that a stage may send when it asks for objects: they belong to its `templates`."""
REPAIRABLE = ("not JSON", "wrong fields")
REFUSALS = ("refusal", "content_filter")
TRIES = 3
"""Completions that are asked for where a stage can't do without one."""


@dataclass(frozen=True)
class Answer(Generic[Fields]):
    """A structured reply, or the reason why there is none."""

    value: Fields | None
    error: Failure | None
    detail: str
    """The error in words; empty where there is a value."""
    calls: tuple[str, ...]
    """Ids of the completions it came from; two where it was repaired."""
    failures: tuple[Failure, ...] = ()
    """What was wrong with each of those that couldn't be used."""


class Complete(Protocol):
    """The client's `complete`."""

    def __call__(self, request: Request, count: int = 1, first: int = 0) -> Awaitable[list[Reply]]: ...


async def structured(complete: Complete, request: Request, schema: type[Fields], index: int) -> Answer[Fields]:
    """Completion `index` of the request as an object. One that isn't JSON or has wrong fields goes back to the model
    once, with the error; a refused, truncated or missing one doesn't."""
    (reply,) = await complete(request, first=index)
    answer = read(reply, schema)
    if answer.error not in REPAIRABLE:
        return answer
    turn = ({"role": "assistant", "content": reply.text or "(empty)"}, repair_message(answer.detail, schema))
    (repaired,) = await complete(replace(request, messages=request.messages + turn), first=index)
    second = read(repaired, schema)
    return replace(second, calls=answer.calls + second.calls, failures=answer.failures + second.failures)


async def usable(
    ask: Callable[..., Awaitable[Any]], messages: list[dict[str, str]], schema: type[Fields], **sampling: float
) -> Answer[Fields]:
    """For what a stage can't do without: completion 0, or else 1, or else 2, where those before it are no use. Replies
    are kept, so that running again would only bring the useless one again. `ask` is the client's."""
    for index in range(TRIES):
        answer: Answer[Fields] = await ask(messages, schema, index=index, **sampling)
        if answer.value is not None or answer.error == "no answer":
            break
    return answer


def repair_message(detail: str, schema: type[BaseModel]) -> dict[str, str]:
    text = prompts.render("repair", detail=detail, schema=json.dumps(strict_schema(schema)))
    return {"role": "user", "content": text}


def read(reply: Reply, schema: type[Fields]) -> Answer[Fields]:
    """The object in a reply, or what is wrong with it."""
    try:
        return Answer(parse(_text(reply), schema), None, "", (reply.call,))
    except UnusableError as error:
        kind: Failure = "truncated" if reply.truncated else error.kind
        return Answer(None, kind, str(error), (reply.call,), (kind,))


def _text(reply: Reply) -> str:
    if reply.text is None:
        raise UnusableError("no answer", reply.error or "the reply has no text")
    if reply.finish_reason in REFUSALS:
        raise UnusableError("refused", reply.text or "the endpoint filtered the reply")
    return reply.text
