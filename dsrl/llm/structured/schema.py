"""Pydantic models as the strict JSON schemas that structured output takes."""

import json
import re
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from dsrl import prompts

JsonMode = Literal["schema", "object", "text"]
"""How an object is asked for: by its schema, as any JSON object, or in words, as text between tags."""
UNSENT = (
    *("title", "default", "minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
"""What strict decoding refuses at one provider or another. Bounds on values are checked when the reply is read."""


@cache
def response_format(schema: type[BaseModel], mode: JsonMode) -> dict[str, Any] | None:
    """The `response_format` field of a request; None where the words of the prompt have to do."""
    if mode == "text":
        return None
    if mode == "object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": schema_name(schema), "schema": strict_schema(schema), "strict": True},
    }


def asked(body: dict[str, Any], schema: type[BaseModel], mode: JsonMode) -> dict[str, Any]:
    """A request body that asks for the object: with its `response_format`, and what that doesn't say at the end of the
    prompt. It is put into the last message, because many chat templates refuse two user turns in a row."""
    words = _words(schema, mode)
    *before, last = body["messages"]
    messages = [*before, {**last, "content": _longer(last["content"], words)}] if words else body["messages"]
    form = response_format(schema, mode)
    return {**body, "messages": messages, **({"response_format": form} if form else {})}


def _longer(content: Any, words: str) -> Any:
    """The content of a turn with words at its end."""
    if isinstance(content, str):
        return f"{content}\n\n{words}"
    return [*content, {"type": "text", "text": words}]


@cache
def _words(schema: type[BaseModel], mode: JsonMode) -> str:
    if mode == "schema":
        return ""
    if mode == "object":
        return prompts.render("object", schema=json.dumps(strict_schema(schema)))
    return prompts.render("tags", fields=list(schema.model_fields))


def schema_name(schema: type[BaseModel]) -> str:
    """The class name in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", schema.__name__).lower()


def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """Every object closed and every field required, without references, as strict decoding wants it."""
    whole = schema.model_json_schema()
    strict = _strict(whole, whole.get("$defs", {}))
    assert isinstance(strict, dict)
    return strict


def _strict(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_strict(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return _strict({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    kept = {key: value for key, value in node.items() if key not in (*UNSENT, "$defs", "properties", "oneOf")}
    strict = {key: _strict(value, definitions) for key, value in kept.items()}
    if "oneOf" in node:
        strict["anyOf"] = _strict(node["oneOf"], definitions)
    if "properties" in node:
        strict["properties"] = {name: _strict(value, definitions) for name, value in node["properties"].items()}
        strict |= {"required": list(node["properties"]), "additionalProperties": False}
    return strict
