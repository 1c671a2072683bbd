"""Request an object: strict JSON schemas from Pydantic models, and fallbacks for endpoints that refuse them."""

import json
import logging
import re
from functools import cache
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from dsrl import prompts

JsonMode = Literal["schema", "object", "text"]
"""An object is requested by its schema, as any JSON object, or as text between tags."""
SIMPLER_MODE: dict[JsonMode, JsonMode] = {"schema": "object", "object": "text"}
DROPPED_KEYWORDS = (
    *("title", "default", "minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
"""Schema keywords that strict decoding refuses at some provider. Bounds are checked when the reply is parsed."""
REFUSAL_STATUS = (400, 404, 415, 422, 500, 501)
REFUSAL_WORDS = (
    *("response_format", "response format", "json_schema", "json schema", "json_object"),
    *("guided", "structured out"),
)
SHOWN = 200

log = logging.getLogger(__name__)


@cache
def response_format(schema: type[BaseModel], mode: JsonMode) -> dict[str, Any] | None:
    """The `response_format` field of a request; None in mode `text`."""
    if mode == "text":
        return None
    if mode == "object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": schema_name(schema), "schema": strict_schema(schema), "strict": True},
    }


def with_response_format(body: dict[str, Any], schema: type[BaseModel], mode: JsonMode) -> dict[str, Any]:
    """A request body that asks for the object: by `response_format`, and by instructions that this field does not
    carry. They are appended to the last message, because many chat templates refuse two user turns in a row."""
    words = _instructions(schema, mode)
    messages = body["messages"]
    if words:
        *before, last = messages
        content = last["content"]
        text = f"{content}\n\n{words}" if isinstance(content, str) else [*content, {"type": "text", "text": words}]
        messages = [*before, {**last, "content": text}]
    form = response_format(schema, mode)
    return {**body, "messages": messages, **({"response_format": form} if form else {})}


@cache
def _instructions(schema: type[BaseModel], mode: JsonMode) -> str:
    if mode == "schema":
        return ""
    if mode == "object":
        return prompts.render("object", schema=json.dumps(strict_schema(schema)))
    return prompts.render("tags", fields=list(schema.model_fields))


def schema_name(schema: type[BaseModel]) -> str:
    """The class name in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", schema.__name__).lower()


def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema as strict decoding requires it: objects closed, all fields required, no references."""
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
    kept = {key: value for key, value in node.items() if key not in (*DROPPED_KEYWORDS, "$defs", "properties", "oneOf")}
    strict = {key: _strict(value, definitions) for key, value in kept.items()}
    if "oneOf" in node:
        strict["anyOf"] = _strict(node["oneOf"], definitions)
    if "properties" in node:
        strict["properties"] = {name: _strict(value, definitions) for name, value in node["properties"].items()}
        strict |= {"required": list(node["properties"]), "additionalProperties": False}
    return strict


class EndpointModes(Protocol):
    """The fields of an endpoint that identify which modes it accepts."""

    @property
    def model(self) -> str: ...
    @property
    def base_url(self) -> str | None: ...
    @property
    def json_mode(self) -> JsonMode: ...


class RefusedRequest(Protocol):
    """A failed call, with the endpoint's message as its text."""

    status: int | None


class JsonModeFallback:
    """Remembers for a whole run which modes endpoints refuse; a refused mode is replaced by the next simpler one."""

    def __init__(self) -> None:
        self._modes: dict[tuple[str, str | None, JsonMode], JsonMode] = {}

    def mode(self, endpoint: EndpointModes) -> JsonMode:
        return self._modes.get((endpoint.model, endpoint.base_url, endpoint.json_mode), endpoint.json_mode)

    def refused(self, endpoint: EndpointModes, body: dict[str, Any], failure: RefusedRequest) -> bool:
        """Whether the failure refuses the mode used in the body, so that the request should be sent again in `mode`.

        Logs a warning for each mode that is given up.
        """
        form = body.get("response_format")
        mode: JsonMode = "text" if form is None else "schema" if form["type"] == "json_schema" else "object"
        message = str(failure)
        mentioned = any(word in message.lower() for word in REFUSAL_WORDS)
        if mode not in SIMPLER_MODE or failure.status not in REFUSAL_STATUS or not mentioned:
            return False
        if self.mode(endpoint) == mode:
            self._modes[endpoint.model, endpoint.base_url, endpoint.json_mode] = SIMPLER_MODE[mode]
            log.warning(
                "%s refuses %s (%s); falling back: set teacher.json_mode=%s to avoid the refused request",
                endpoint.model,
                "JSON schemas" if mode == "schema" else "JSON mode",
                message[:SHOWN],
                SIMPLER_MODE[mode],
            )
        return True
