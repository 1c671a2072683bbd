"""What a model wrote, as an object: read tolerantly, checked strictly, and never evaluated."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from dsrl.llm.structured.latex_in_json import mended

Fields = TypeVar("Fields", bound=BaseModel)
Failure = Literal["not JSON", "wrong fields", "refused", "truncated", "no answer"]
DECODER = json.JSONDecoder(strict=False)
MOST_TRIES = 500
"""Places in one reply where an object may begin."""
OBJECT = re.compile(r'\{\s*["}]')


class UnusableError(Exception):
    """A reply that is not the object asked for."""

    def __init__(self, kind: Failure, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def parse(text: str, schema: type[Fields]) -> Fields:
    """The first JSON object in the text that fits the schema, wherever it stands, fenced or not; or else its fields in
    tags. Thoughts before it are passed over, strings may hold raw line breaks, and LaTeX stays what it is."""
    text = text.rpartition("</think>")[2]
    problem = UnusableError(
        "not JSON", "there is no JSON object in it, and no field between tags" if text.strip() else "the reply is empty"
    )
    for value in (*objects(text), *tagged(text, schema)):
        try:
            return schema.model_validate(value)
        except ValidationError as error:
            if problem.kind == "not JSON":
                problem = UnusableError("wrong fields", _errors(error))
    raise problem


def objects(text: str) -> Iterator[Any]:
    """The outermost JSON objects in a text, in order."""
    first = OBJECT.search(text)
    if first is None:
        return
    text, position = mended(text[first.start() :]), 0
    for _ in range(MOST_TRIES):
        found = OBJECT.search(text, position)
        if found is None:
            return
        try:
            value, position = DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            position = found.start() + 1
        else:
            yield value


def tagged(text: str, schema: type[BaseModel]) -> Iterator[dict[str, Any]]:
    """The fields that stand between tags of their names: text as it is, anything else as JSON. Nothing if there is
    none."""
    found = {name: match[1].strip() for name in schema.model_fields if (match := _between(name).search(text))}
    if found:
        yield {name: _value(raw, schema.model_fields[name].annotation) for name, raw in found.items()}


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>", re.DOTALL)


def _value(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _errors(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']}" for e in error.errors())
