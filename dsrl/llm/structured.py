"""Replies as objects: what a model wrote is read tolerantly, checked strictly, and sent back once if it doesn't fit."""

import json
import re
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from dsrl.llm.request import Request
from dsrl.llm.schema import strict_schema
from dsrl.model import Reply

Fields = TypeVar("Fields", bound=BaseModel)
Failure = Literal["not JSON", "wrong fields", "refused", "truncated", "no answer"]
REPAIRABLE = ("not JSON", "wrong fields")
REFUSALS = ("refusal", "content_filter")
REPAIR = """Your reply can't be used: {detail}
Send the whole answer again as one JSON object that fits this schema, and nothing else:
{schema}"""

# Commands whose first letter JSON takes for a control character. The doubtful ones may also be the start of a new
# line's own word, and count only after what comes before a command: a space, a bracket, a dollar sign.
COMMANDS = (
    "nabla newline nleftarrow neq nleq ngeq not notin natural nearrow nmid times text textbf textit textrm theta tanh "
    "tau triangle tfrac tilde therefore rho right rightarrow rightleftharpoons rangle rfloor rceil"
)
DOUBTFUL = "ne nu ni neg to top tan rm root"
BACKSLASH = re.compile(
    r"\\\\|"
    rf"(\\(?:{COMMANDS.replace(' ', '|')})(?![A-Za-z]))|"
    rf"((?<=[ $(\[{{}}])\\(?:{DOUBTFUL.replace(' ', '|')})(?![A-Za-z]))|"
    r'\\(?:["/nrt]|u[0-9a-fA-F]{4})|'
    r"(\\)"
)
DECODER = json.JSONDecoder(strict=False)


class UnusableError(Exception):
    """A reply that is not the object asked for."""

    def __init__(self, kind: Failure, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class Answer(Generic[Fields]):
    """A structured reply, or the reason why there is none."""

    value: Fields | None
    error: Failure | None
    detail: str
    """The error in words; empty where there is a value."""
    calls: tuple[str, ...]
    """Ids of the completions it came from; two where it was repaired."""


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
    turn = ({"role": "assistant", "content": reply.text or ""}, repair_message(answer.detail, schema))
    (repaired,) = await complete(replace(request, messages=request.messages + turn), first=index)
    second = read(repaired, schema)
    return replace(second, calls=answer.calls + second.calls)


def repair_message(detail: str, schema: type[BaseModel]) -> dict[str, str]:
    text = REPAIR.format(detail=detail, schema=json.dumps(strict_schema(schema)))
    return {"role": "user", "content": text}


def read(reply: Reply, schema: type[Fields]) -> Answer[Fields]:
    """The object in a reply, or what is wrong with it."""
    try:
        return Answer(parse(_text(reply), schema), None, "", (reply.call,))
    except UnusableError as error:
        kind: Failure = "truncated" if reply.truncated else error.kind
        return Answer(None, kind, str(error), (reply.call,))


def _text(reply: Reply) -> str:
    if reply.text is None:
        raise UnusableError("no answer", reply.error or "the reply has no text")
    if reply.finish_reason in REFUSALS:
        raise UnusableError("refused", reply.text or "the endpoint filtered the reply")
    return reply.text


def parse(text: str, schema: type[Fields]) -> Fields:
    """The first JSON object in the text that fits the schema, wherever it stands; thoughts before it are passed over.

    LaTeX with single backslashes stays what it is (`\\frac` is no form feed), and strings may hold raw line breaks.
    """
    problem = UnusableError("not JSON", "there is no JSON object in it")
    for value in objects(text.rpartition("</think>")[2]):
        try:
            return schema.model_validate(value)
        except ValidationError as error:
            if problem.kind == "not JSON":
                problem = UnusableError("wrong fields", _errors(error))
    raise problem


def objects(text: str) -> Iterator[Any]:
    """The outermost JSON objects in a text, in order."""
    text = BACKSLASH.sub(lambda found: "\\" + found[0] if found.lastindex else found[0], text)
    position = text.find("{")
    while position >= 0:
        try:
            value, end = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            yield value
        position = text.find("{", end)


def _errors(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in error.errors())
