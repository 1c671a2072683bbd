"""Structured output that an endpoint refuses: asked for in another way, and found again in the next run."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dsrl.core.errors import UserError
from dsrl.llm import Answer, Client, Endpoint, Ledger, ReplyCache, Spending
from dsrl.llm.structured.schema import JsonModeFallback
from tests.llm.server import Json, Says, Script, completion, error, serve

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write a sample."}]
KEY = ("generate", "teacher", "m")
LATEX = r"What is $\frac{1}{2} \times \nabla$?" + "\nSay it."


class Draft(BaseModel):
    input: str
    output: str


REFUSALS: dict[str, str] = {
    "json_schema": "'response_format.type' must be one of text or json_object",
    "json_object": "This model does not support JSON mode (response_format)",
}


def refusing(*kinds: str) -> Callable[[Json, int], str | Says]:
    """A server that refuses some kinds of response_format, and writes what is asked for in the others."""

    def answer(body: Json, choice: int) -> str | Says:
        kind = (body.get("response_format") or {}).get("type")
        if kind in kinds:
            return error(400, REFUSALS[kind])
        if kind is None:
            return f"Here it is:\n<input>\n{LATEX}\n</input>\n<output>4</output>"
        return json.dumps({"input": LATEX, "output": "4"})

    return answer


class Steps(deque[object]):
    """Makes the scripted server look at each request before it decides."""

    def __init__(self, script: Script, decide: Callable[[Json, int], str | Says]) -> None:
        super().__init__([None])
        self.script, self.decide = script, decide

    def popleft(self) -> object:
        said = self.decide(self.script.bodies[-1], 0)
        return said if isinstance(said, Says) else Says(200, completion([said]))


def run(
    script: Script, folder: Path, formats: JsonModeFallback, count: int = 1, **fields: Any
) -> tuple[list[Answer[Draft]], Spending]:
    ledger = Ledger()

    async def act() -> list[Answer[Draft]]:
        described = Endpoint(model="m", base_url=script.url, backoff=0.0, **fields)
        async with Client(described, ReplyCache(folder), ledger, stage="generate", json_modes=formats) as client:
            return [await client.ask(ASK, Draft, index) for index in range(count)]

    return asyncio.run(act()), ledger.rows().get(KEY, Spending())


def kinds(script: Script) -> list[str | None]:
    return [(body.get("response_format") or {}).get("type") for body in script.bodies]


WAYS: list[tuple[tuple[str, ...], list[str | None]]] = [
    ((), ["json_schema", "json_schema"]),
    (("json_schema",), ["json_schema", "json_object", "json_object"]),
    (("json_schema", "json_object"), ["json_schema", "json_object", None, None]),
]


@pytest.mark.parametrize(("refused", "asked"), WAYS)
def test_what_is_refused_gives_way_once_and_is_remembered(
    refused: tuple[str, ...], asked: list[str | None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve() as script:
        script.steps = Steps(script, refusing(*refused))
        answers, spent = run(script, tmp_path, JsonModeFallback(), count=2)
    assert kinds(script) == asked
    assert [answer.value for answer in answers] == [Draft(input=LATEX, output="4")] * 2
    assert len(caplog.records) == len(refused)
    assert all("teacher.json_mode=" in record.getMessage() for record in caplog.records)
    assert (spent.requests, spent.completions) == (len(asked), 2)


@pytest.mark.parametrize("mode", ["schema", "object", "text"])
def test_what_was_paid_for_in_one_way_is_found_in_every_other(mode: str, tmp_path: Path) -> None:
    """So that following the advice of the warning, or starting anew, costs nothing."""
    with serve() as script:
        script.steps = Steps(script, refusing("json_schema", "json_object"))
        first, _ = run(script, tmp_path, JsonModeFallback())
        sent = len(script.bodies)
        again, spent = run(script, tmp_path, JsonModeFallback(), json_mode=mode)
        assert (again, len(script.bodies), spent.store_hits) == (first, sent, 1)


def test_the_clients_of_a_run_share_what_was_learnt(tmp_path: Path) -> None:
    formats = JsonModeFallback()
    with serve() as script:
        script.steps = Steps(script, refusing("json_schema"))
        run(script, tmp_path / "one", formats)
        run(script, tmp_path / "two", formats)
    assert kinds(script) == ["json_schema", "json_object", "json_object"]


def test_the_words_stand_at_the_end_of_the_last_message(tmp_path: Path) -> None:
    with serve() as script:
        script.steps = Steps(script, refusing("json_schema", "json_object"))
        run(script, tmp_path, JsonModeFallback())
    _, as_object, in_words = (body["messages"] for body in script.bodies)
    assert [message["role"] for message in in_words] == ["system", "user"]
    assert as_object[0] == in_words[0] == ASK[0]
    assert in_words[1]["content"].startswith("Write a sample.\n\nDon't reply with JSON.")
    assert '"required": ["input", "output"]' in as_object[1]["content"]


def test_another_refusal_still_ends_the_run(tmp_path: Path) -> None:
    with serve(error(400, "max_tokens is too large")) as script, pytest.raises(UserError, match="max_tokens"):
        run(script, tmp_path, JsonModeFallback())
    assert len(script.bodies) == 1


FAILURES: list[tuple[list[Json], dict[str, int], int]] = [
    ([completion(["no"]), completion(['{"input": "a", "output": "b"}'])], {"not JSON": 1}, 1),
    ([completion(["no"]), completion(['{"input": "a"}'])], {"not JSON": 1, "wrong fields": 1}, 1),
    ([completion([""]), completion([""])], {"not JSON": 2}, 1),
    ([completion(['{"input": "a'], "length")], {"truncated": 1}, 0),
    ([completion([""], "content_filter")], {"refused": 1}, 0),
    ([completion(['{"input": "a", "output": "b"}'])], {}, 0),
]


@pytest.mark.parametrize(("replies", "counted", "repairs"), FAILURES)
def test_parse_failures_are_counted_by_kind(
    replies: list[Json], counted: dict[str, int], repairs: int, tmp_path: Path
) -> None:
    with serve(*[Says(200, reply) for reply in replies]) as script:
        _, spent = run(script, tmp_path, JsonModeFallback())
    assert (dict(spent.parse_failures), spent.repairs) == (counted, repairs)
    total = spent + replace(spent)
    assert dict(total.parse_failures) == {kind: 2 * count for kind, count in counted.items()}
    assert dict((total - spent).parse_failures) == counted
    json.dumps(total.counters())
