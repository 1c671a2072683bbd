"""The model behind the fault server.

Choice j of a request with seed s equals choice 0 of a request with seed s + j, as with vLLM, so completions don't
depend on how they are split into requests.
"""

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import Any

from dsrl.core.errors import UserError
from tests.support.faultserver import draw
from tests.support.faultserver.faults import HABITS, Faults

Body = Mapping[str, Any]
WORDS = """
    a the one two some few many old new small large red blue green white apple boat candle door engine farm garden house
    island jar kite lamp market number orchard paper question river station table village window year has finds buys
    sells loses counts carries opens walks before after under over near and or then there
"""
VOCABULARY = WORDS.split()
MAX_DEPTH = 6
"""Nested schemas are filled minimally below this depth."""
CHARACTERS_PER_TOKEN = 4
DEFAULT_MODEL = "fault-1"


@dataclass(frozen=True, slots=True)
class ModelReply:
    """Text of one choice, or a refusal instead."""

    content: str | None
    refusal: str | None = None


Answer = Callable[[Body, str, int], ModelReply]
"""(request body, key of the request, index of the choice) -> reply."""


def find_answer(faults: Faults) -> Answer:
    """The function that `faults.answer` names. Raises `UserError` for an unknown name."""
    known: dict[str, Callable[[Faults], Answer]] = {
        "words": lambda _: RandomWords(faults).reply,
        "echo": lambda _: echo,
        "votes": lambda _: Votes(faults).reply,
        "sure": lambda _: Votes(faults, always_correct=True).reply,
        "quickstart": quickstart,
    }
    if faults.answer in known:
        return known[faults.answer](faults)
    module, _, name = faults.answer.partition(":")
    try:
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError("no such answer", got=faults.answer, allowed=[*known, "module:function"]) from error


def choice_seed(body: Body, index: int) -> int:
    """Random seed of choice `index`: the same for all choices at temperature 0."""
    return 0 if body.get("temperature") == 0 else (body.get("seed") or 0) + index


def last_message(body: Body) -> str:
    """Text of the last message."""
    content = body["messages"][-1].get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def requested_schema(body: Body) -> dict[str, Any] | None:
    """The JSON schema of the reply; in JSON mode a schema with a text field."""
    form = body.get("response_format") or {}
    if form.get("type") == "json_object":
        return {"type": "object", "properties": {"text": {"type": "string"}}}
    return (form.get("json_schema") or {}).get("schema")


def echo(body: Body, _: str, index: int) -> ModelReply:
    """The prompt and the seed of the choice."""
    return ModelReply(f"{last_message(body)} / {(body.get('seed') or 0) + index}")


class RandomWords:
    """Random words, as a JSON object if the request has a schema."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def reply(self, body: Body, key: str, index: int) -> ModelReply:
        rng = random.Random(f"{self.faults.seed} {key} {choice_seed(body, index)}")
        schema = requested_schema(body)
        return ModelReply(self.text(rng) if schema is None else json.dumps(fill(schema, schema, rng, self.text)))

    def text(self, rng: random.Random) -> str:
        length = max(1, int(self.faults.words * (0.5 + rng.random())))
        return " ".join(rng.choices(VOCABULARY, k=length))


class Votes(RandomWords):
    """Writes questions like `RandomWords` and answers each with its own probability of being correct.

    Three questions in four are easy; the others range from hopeless to certain. There are four wrong answers, the first
    more popular than the last.
    """

    def __init__(self, faults: Faults, *, always_correct: bool = False) -> None:
        super().__init__(faults)
        self.always_correct = always_correct

    def reply(self, body: Body, key: str, index: int) -> ModelReply:
        if requested_schema(body) is not None:
            return super().reply(body, key, index)
        name = f"{self.faults.seed} {key}"
        question, rng = random.Random(name), random.Random(f"{name} {choice_seed(body, index)}")
        truth = question.randrange(100)
        skill = question.betavariate(12, 1) if question.random() < 0.75 else question.random()
        correct = self.always_correct or rng.random() < skill
        error = 0 if correct else rng.choices((1, 2, 3, 4), weights=(8, 4, 2, 1))[0]
        return ModelReply(f"{self.text(rng)}\n#### {truth + error}")


def quickstart(faults: Faults) -> Answer:
    """The offline teacher of the quickstart."""
    from dsrl.quickstart.teacher import OfflineTeacher

    teacher = OfflineTeacher(seed=faults.seed)

    def reply(body: Body, _: str, index: int) -> ModelReply:
        said = teacher.choice(body, index)
        return ModelReply(said.content, said.refusal)

    return reply


class Completions:
    """Builds `chat.completion` objects."""

    _numbers = count()

    def __init__(self, faults: Faults) -> None:
        """Raises `UserError` for an unknown `faults.answer`."""
        self.faults = faults
        self._answer = find_answer(faults)

    def build(self, body: Body, key: str) -> dict[str, Any]:
        """A completion with all its choices. Raises `ValueError` for a request that can't be answered."""
        choices = [self._choice(body, key, index) for index in range(body.get("n") or 1)]
        read = count_prompt_tokens(body["messages"])
        written = sum(count_tokens(str(c["message"]["content"] or c["message"]["refusal"] or "")) for c in choices)
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model") or DEFAULT_MODEL,
            "choices": choices,
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "prompt_tokens_details": {"cached_tokens": int(self.faults.cached * read)},
            },
        }

    def _choice(self, body: Body, key: str, index: int) -> dict[str, Any]:
        reply, finish = self._answer(body, key, index), "stop"
        if self.faults.shares:
            parts = (self.faults.seed, key, (body.get("seed") or 0) + index, "habit")
            reply, finish = apply_habit(reply, draw.pick_fault(self.faults.shares, HABITS, *parts))
        content, limit = reply.content, token_limit(body)
        if content and limit is not None and count_tokens(content) > limit:
            content, finish = content[: limit * CHARACTERS_PER_TOKEN], "length"
        message = {"role": "assistant", "content": content, "refusal": reply.refusal}
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}


def apply_habit(reply: ModelReply, habit: str | None) -> tuple[ModelReply, str]:
    """The reply with this fault of the model, and its finish reason."""
    text = reply.content or ""
    match habit:
        case "length":
            return ModelReply(text[: len(text) // 2]), "length"
        case "filter":
            return ModelReply(""), "content_filter"
        case "refusal":
            return ModelReply(None, "I can't help with that."), "stop"
        case "not_json":
            return ModelReply(text[: len(text) * 2 // 3]), "stop"
        case "wrong_schema":
            return ModelReply(json.dumps({"thing": text[:20], "count": 1})), "stop"
    return reply, "stop"


def count_tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def count_prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """Tokens of all messages, plus three per message."""
    return sum(count_tokens(str(message.get("content") or "")) + 3 for message in messages)


def token_limit(body: Body) -> int | None:
    """Maximum reply length of the request in tokens."""
    return body.get("max_completion_tokens") or body.get("max_tokens")


def fill(node: Body, root: Body, rng: random.Random, text: Callable[..., str], depth: int = 0) -> Any:
    """A random value that fits the JSON schema `node`. Raises `ValueError` for a `$ref` that `root` doesn't define."""
    node = resolve_reference(node, root)
    for part in node.get("allOf", ()):
        node = {**node, **resolve_reference(part, root)}
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return rng.choice(node["enum"])
    for name in ("anyOf", "oneOf"):
        if name in node:
            return fill(rng.choice(node[name]) if depth < MAX_DEPTH else node[name][-1], root, rng, text, depth + 1)
    kind = node.get("type", "object" if "properties" in node else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: fill(part, root, rng, text, depth + 1) for name, part in node.get("properties", {}).items()}
    if kind == "array":
        low = node.get("minItems", 0 if depth >= MAX_DEPTH else 1)
        high = max(low, min(node.get("maxItems", 3), low + 2 if depth < MAX_DEPTH else low))
        return [fill(node.get("items", {}), root, rng, text, depth + 1) for _ in range(rng.randint(low, high))]
    return fill_scalar(kind, node, rng, text)


def fill_scalar(kind: str, node: Body, rng: random.Random, text: Callable[..., str]) -> Any:
    """A string, number, boolean or null within the schema's bounds."""
    low = node.get("minimum", node.get("exclusiveMinimum", 0))
    high = node.get("maximum", node.get("exclusiveMaximum", low + 100))
    match kind:
        case "integer":
            first, final = int(low) + ("exclusiveMinimum" in node), int(high) - ("exclusiveMaximum" in node)
            return rng.randint(first, max(first, final))
        case "number":
            return round(low + (high - low) * (0.25 + rng.random() / 2), 4)
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    words = text(rng)
    return words.ljust(node.get("minLength", 0), ".")[: node.get("maxLength")]


def resolve_reference(node: Body, root: Body) -> Body:
    """Follow `$ref`s to the schema they name."""
    while "$ref" in node:
        target: Any = root
        for step in node["$ref"].removeprefix("#").split("/")[1:]:
            target = target.get(step) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping) or target is node:
            raise ValueError(f"{node['$ref']} is not defined")
        node = target
    return node
