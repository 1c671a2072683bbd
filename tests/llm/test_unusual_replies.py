"""Replies and refusals that real providers send, by kind: what is kept, what is booked, what stops a run."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import BudgetReached, UserError
from dsrl.data.model import Reply
from dsrl.llm import Client, Endpoint, Ledger, Price, ReplyCache
from dsrl.llm.completions import error_text, read_completions
from dsrl.llm.failures import CallError
from tests.llm.running import completions, endpoint, run
from tests.llm.server import Json, Says, completion, error, serve

USAGE = {"prompt_tokens": 10, "completion_tokens": 3}


async def ask_all(client: Client, contents: list[str]) -> list[Reply]:
    replies = await asyncio.gather(*[completions(1, content=content)(client) for content in contents])
    return [reply for (reply,) in replies]


def refuse_poison(step: Says) -> Any:
    """Refuses the prompts that contain `poison`, and answers all others."""

    def answer(body: Json, choice: int) -> Any:
        del choice
        return step if "poison" in str(body["messages"]) else "fine"

    return answer


class Deciding:
    """Steps for the scripted server that depend on the request."""

    def __init__(self, script: Any, answer: Any) -> None:
        self.script, self.answer = script, answer

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> object:
        said = self.answer(self.script.bodies[-1], 0)
        return said if isinstance(said, Says) else Says(200, completion([said]))


REFUSALS = [
    error(400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_prompt"),
    error(400, "Output blocked by content filtering policy"),
    error(400, "Input data may contain inappropriate content.", "data_inspection_failed"),
    error(400, "the request exceeds the available context size", "exceed_context_size_error"),
    error(422, "`inputs` tokens + `max_new_tokens` must be <= 4096"),
    error(404, "no endpoint for this prompt"),
    error(451, "unavailable for legal reasons"),
    Says(403, b"<html><title>Blocked by the firewall</title></html>"),
    Says(400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": "too many pages"}}}),
]


@pytest.mark.parametrize("step", REFUSALS)
def test_refusal_of_one_prompt_concerns_that_prompt(tmp_path: Path, step: Says) -> None:
    contents = ["poison", *map(str, range(7))]
    with serve() as script:
        script.steps = Deciding(script, refuse_poison(step))  # type: ignore[assignment]
        replies, spent = run(endpoint(script), tmp_path, lambda client: ask_all(client, contents))
        assert [reply.text for reply in replies] == [None] + ["fine"] * 7
        assert str(step.status) in (replies[0].error or "")
        assert (spent.requests, spent.errors, spent.lost) == (8, 1, 0)
        # in the next run the other replies come from the cache, and are evidence all the same
        replies, spent = run(endpoint(script), tmp_path, lambda client: ask_all(client, contents))
        assert [reply.text for reply in replies] == [None] + ["fine"] * 7
        assert spent.requests == 1


@pytest.mark.parametrize("step", REFUSALS)
def test_refusal_of_every_prompt_stops_the_run(tmp_path: Path, step: Says) -> None:
    with serve(*[step] * 100) as script:
        with pytest.raises(UserError) as caught:
            run(endpoint(script), tmp_path, lambda client: ask_all(client, [str(i) for i in range(40)]))
        assert len(script.bodies) <= 40
    assert str(step.status) in str(caught.value)


@pytest.mark.parametrize("step", [error(401, "bad key"), error(402, "no balance")])
def test_refusal_of_the_account_stops_the_run_after_completions(tmp_path: Path, step: Says) -> None:
    with serve() as script:
        script.steps = Deciding(script, refuse_poison(step))  # type: ignore[assignment]

        async def act(client: Client) -> None:
            await ask_all(client, ["fine"])
            await ask_all(client, ["poison"])

        with pytest.raises(UserError):
            run(endpoint(script), tmp_path, act)


def test_failed_json_check_of_the_provider_is_drawn_again(tmp_path: Path) -> None:
    with serve(error(400, "Failed to generate JSON. Please adjust your prompt.", "json_validate_failed")) as script:
        (reply,), spent = run(endpoint(script), tmp_path, completions(1))
    assert reply.error is None
    assert spent.requests == 2


def body(message: object, finish: object = "stop", usage: object = USAGE) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()


KEPT: dict[str, tuple[bytes, str]] = {
    "parts": (body({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}]}), "4"),
    "parts as strings": (body({"content": ["a", "b"]}), "ab"),
    "an object": (body({"content": {"answer": 4}}), '{"answer": 4}'),
    "a number": (body({"content": 4}), "4"),
    "an object as reasoning": (body({"content": None, "reasoning_content": '{"answer": 4}'}), '{"answer": 4}'),
    "thoughts alone": (body({"content": None, "reasoning_content": "It may be 4 or 5"}), ""),
    "a tool call": (body({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, "tool_calls"), "{}"),
    "no message": (body(None, "content_filter"), ""),
    "half an escape": (body({"content": "x"}).replace(b'"x"', rb'"half \ud8m"'), "half \\ud8m"),
    "invalid UTF-8": (body({"content": "x"}).replace(b'"x"', b'"\xff\xfe"'), "\ufffd\ufffd"),
    "a raw line break": (body({"content": "x"}).replace(b'"x"', b'"a\nb"'), "a\nb"),
    "NUL behind the body": (body({"content": "x"}) + b"\0\0", "x"),
    "a second object": (body({"content": "x"}) + b'{"more": 1}', "x"),
    "a control character": (body({"content": "a\x00b\x1b"}), "a\ufffdb\ufffd"),
    "half a surrogate pair": (body({"content": "a\ud83d"}), "a\ufffd"),
    "an event stream": (
        b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
        b'data: {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}], "usage": '
        b'{"prompt_tokens": 10, "completion_tokens": 3}}\n\ndata: [DONE]\n',
        "Hello",
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_billed_reply_is_kept_and_booked_once(tmp_path: Path, name: str) -> None:
    content, text = KEPT[name]
    with serve(*[Says(200, content)] * 10) as script:
        (reply,), spent = run(endpoint(script), tmp_path, completions(1))
    assert (reply.text, reply.error) == (text, None)
    assert (spent.requests, spent.input_tokens, spent.output_tokens) == (1, 10, 3)
    assert spent.usd == pytest.approx(16e-6)


UNUSABLE: dict[str, bytes] = {
    "broken off": body({"content": "#### 2"}, "abort"),
    "error": body({"content": "#### 2"}, "error"),
    "cut stream": b'data: {"choices": [{"delta": {"content": "Hel"}}], "usage": ' + json.dumps(USAGE).encode() + b"}\n",
    "no choices": json.dumps({"choices": [], "usage": USAGE}).encode(),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_billed_reply_that_cannot_be_used_is_booked_and_repeated_twice(tmp_path: Path, name: str) -> None:
    with serve(*[Says(200, UNUSABLE[name])] * 100) as script:
        (reply,), spent = run(endpoint(script, max_retries=30), tmp_path, completions(1))
    assert reply.error is not None
    assert (spent.requests, spent.completions, spent.errors) == (3, 0, 1)
    assert (spent.input_tokens, spent.output_tokens) == (30, 9)
    assert spent.usd == pytest.approx(3 * 16e-6)


@pytest.mark.parametrize("content", [*UNUSABLE.values(), body({"content": "x"}, "abort", {})])
def test_budget_holds_against_unusable_replies(tmp_path: Path, content: bytes) -> None:
    described = {"price": Price(input=1e6, output=1e6, date="2026-11-20"), "max_retries": 30, "max_tokens": 10}
    with serve(*[Says(200, content)] * 100) as script:

        async def act() -> None:
            ledger = Ledger(budget_tokens=70)
            async with Client(endpoint(script, **described), ReplyCache(tmp_path), ledger) as client:
                for number in range(20):
                    await completions(1, content=str(number))(client)

        with pytest.raises(BudgetReached):
            asyncio.run(act())
        assert len(script.bodies) <= 7


ZERO_USAGE = [{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"prompt_tokens": 0}, {}, None]


@pytest.mark.parametrize("usage", ZERO_USAGE)
def test_missing_or_zero_usage_is_unknown_and_never_free(tmp_path: Path, usage: object) -> None:
    with serve(Says(200, body({"content": "4"}, usage=usage))) as script:
        (reply,), spent = run(endpoint(script), tmp_path, completions(1))
    assert reply.text == "4"
    assert spent.usd is None


def test_compressed_bomb_is_bounded(tmp_path: Path) -> None:
    bomb = gzip.compress(body({"content": "x" * 50_000_000}))
    with serve(*[Says(200, bomb, {"Content-Encoding": "gzip"})] * 10) as script:
        (reply,), spent = run(endpoint(script, max_tokens=100), tmp_path, completions(1))
    assert reply.error is not None
    assert spent.requests == 3


GARBAGE = [b"[" * 100_000, b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1' + b"0" * 400]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_is_a_call_error(content: bytes) -> None:
    with pytest.raises(CallError):
        read_completions(content)


def test_many_choices_and_huge_counts_are_read_in_linear_time() -> None:
    choices = [{"index": i, "message": {"content": "x"}} for i in range(20_000)]
    whole = read_completions(json.dumps({"choices": choices, "usage": {"prompt_tokens": 10**400}}).encode())
    assert len(whole.replies()) == 20_000
    assert whole.billed is None


def test_nested_errors_are_read() -> None:
    raw = json.dumps({"error": {"message": "the maximum context length is 10 tokens"}})
    nested = {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}}
    assert "maximum context length is 10" in error_text(json.dumps(nested))[1]
    assert (
        "no such field"
        in error_text(json.dumps({"error": {"message": "bad", "innererror": {"x": "no such field"}}}))[1]
    )
    assert error_text("[" * 100_000)[0] == ""


def test_key_in_a_reply_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", "sekret-key")
    echo = Says(200, b'{"error": {"message": "Authorization: Bearer sekret-key"}}')
    with serve(*[echo] * 10) as script:
        (reply,), _ = run(endpoint(script, api_key_env="DSRL_TEST_KEY"), tmp_path, completions(1))
    assert "sekret" not in (reply.error or "")


def test_escape_sequences_of_an_endpoint_are_not_printed(tmp_path: Path) -> None:
    with serve(*[error(500, "\x1b]0;owned\x07 \x1b[2J")] * 10) as script:
        (reply,), _ = run(endpoint(script), tmp_path, completions(1))
    assert reply.error is not None
    assert "\x1b" not in reply.error


def test_base_url_with_an_account_is_refused_without_showing_it() -> None:
    described = Endpoint(model="m", base_url="http://user:sekret@host/v1")
    with pytest.raises(UserError, match="base_url") as caught:
        described.check()
    assert "sekret" not in str(caught.value)
