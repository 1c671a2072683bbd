"""What the model behind the fault server says: choice j of a request with seed s is what choice 0 of seed s + j would
be, as with vLLM, so however completions are cut into requests, each comes out the same."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from dsrl.core.errors import UserError
from tests.support.faultserver.faults import Faults

Body = Mapping[str, Any]
WORDS = """
    a the one two some few many old new small large red blue green white apple boat candle door engine farm garden house
    island jar kite lamp market number orchard paper question river station table village window year has finds buys
    sells loses counts carries opens walks before after under over near and or then there
"""
VOCABULARY = WORDS.split()
DEEPEST = 6
"""Nested schemas are filled with as little as they allow below this depth."""


@dataclass(frozen=True, slots=True)
class Said:
    """One reply: text, or a refusal in its place."""

    content: str | None
    refusal: str | None = None


Answer = Callable[[Body, str, int], Said]
"""(body of the request, its key, number of the choice) -> what is said."""


def answer(faults: Faults) -> Answer:
    """The function behind a name. Raises `UserError` for an unknown one."""
    known: dict[str, Callable[[Faults], Answer]] = {
        "words": lambda _: Words(faults).say,
        "echo": lambda _: echo,
        "votes": lambda _: Votes(faults).say,
        "sure": lambda _: Votes(faults, sure=True).say,
        "quickstart": lambda _: quickstart(faults),
    }
    if faults.answer in known:
        return known[faults.answer](faults)
    module, _, name = faults.answer.partition(":")
    try:
        return getattr(import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError("no such answer", got=faults.answer, allowed=[*known, "module:function"]) from error


def drawn(body: Body, index: int) -> int:
    """What stands for chance in choice `index`; the same at every choice where the temperature is 0."""
    return 0 if body.get("temperature") == 0 else (body.get("seed") or 0) + index


def last(body: Body) -> str:
    """Text of the last message."""
    content = body["messages"][-1].get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def schema(body: Body) -> dict[str, Any] | None:
    """The JSON schema that the reply has to fit; one for any object in JSON mode."""
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"text": {"type": "string"}}}
    return (wanted.get("json_schema") or {}).get("schema")


def echo(body: Body, _: str, index: int) -> Said:
    """The prompt and the number drawn."""
    return Said(f"{last(body)} / {(body.get('seed') or 0) + index}")


class Words:
    """Random words, or JSON that fits the schema asked for with random words in it."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    def say(self, body: Body, key: str, index: int) -> Said:
        rng = random.Random(f"{self.faults.seed} {key} {drawn(body, index)}")
        wanted = schema(body)
        if wanted is not None:
            return Said(json.dumps(fill(wanted, wanted, rng, self.text)))
        return Said(self.text(rng))

    def text(self, rng: random.Random) -> str:
        count = max(1, int(self.faults.words * (0.5 + rng.random())))
        return " ".join(rng.choices(VOCABULARY, k=count))


class Votes(Words):
    """Invents questions as `Words` does and answers each with a probability of its own, so that majority votes have
    work to do: three questions in four are easy, the others anything from hopeless to certain. A wrong answer is one of
    four, the first more popular than the last."""

    def __init__(self, faults: Faults, sure: bool = False) -> None:
        super().__init__(faults)
        self.sure = sure

    def say(self, body: Body, key: str, index: int) -> Said:
        if schema(body) is not None:
            return super().say(body, key, index)
        name = f"{self.faults.seed} {key}"
        question, rng = random.Random(name), random.Random(f"{name} {drawn(body, index)}")
        truth = question.randrange(100)
        skill = question.betavariate(12, 1) if question.random() < 0.75 else question.random()
        slip = 0 if self.sure or rng.random() < skill else rng.choices((1, 2, 3, 4), weights=(8, 4, 2, 1))[0]
        return Said(f"{self.text(rng)}\n#### {truth + slip}")


def quickstart(faults: Faults) -> Answer:
    """The offline teacher of the quickstart."""
    from dsrl.quickstart.teacher import OfflineTeacher

    teacher = OfflineTeacher(seed=faults.seed)

    def say(body: Body, _: str, index: int) -> Said:
        said = teacher.choice(body, index)
        return Said(said.content, said.refusal)

    return say


def fill(
    node: Mapping[str, Any], root: Mapping[str, Any], rng: random.Random, text: Callable[..., str], deep: int = 0
) -> Any:
    """A value that fits a JSON schema. Raises `ValueError` for a `$ref` that leads nowhere."""
    node = resolve(node, root)
    for further in node.get("allOf", ()):
        node = {**node, **resolve(further, root)}
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return rng.choice(node["enum"])
    for name in ("anyOf", "oneOf"):
        if name in node:
            return fill(rng.choice(node[name]) if deep < DEEPEST else node[name][-1], root, rng, text, deep + 1)
    kind = node.get("type", "object" if "properties" in node else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: fill(part, root, rng, text, deep + 1) for name, part in node.get("properties", {}).items()}
    if kind == "array":
        fewest = node.get("minItems", 0 if deep >= DEEPEST else 1)
        count = rng.randint(fewest, max(fewest, min(node.get("maxItems", 3), fewest + 2 if deep < DEEPEST else fewest)))
        return [fill(node.get("items", {}), root, rng, text, deep + 1) for _ in range(count)]
    return scalar(kind, node, rng, text)


def scalar(kind: str, node: Mapping[str, Any], rng: random.Random, text: Callable[..., str]) -> Any:
    """A string, number, boolean or null within the schema's bounds."""
    low = node.get("minimum", node.get("exclusiveMinimum", 0))
    high = node.get("maximum", node.get("exclusiveMaximum", low + 100))
    if kind == "integer":
        first, last_ = int(low) + ("exclusiveMinimum" in node), int(high) - ("exclusiveMaximum" in node)
        return rng.randint(first, max(first, last_))
    if kind == "number":
        return round(low + (high - low) * (0.25 + rng.random() / 2), 4)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    words = text(rng)
    words += "." * (node.get("minLength", 0) - len(words))
    return words[: node.get("maxLength")]


def resolve(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node that a chain of `$ref` leads to."""
    while "$ref" in node:
        found: Any = root
        for step in node["$ref"].removeprefix("#").split("/")[1:]:
            found = found.get(step) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping) or found is node:
            raise ValueError(f"{node['$ref']} leads nowhere")
        node = found
    return node
