import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dsrl.core.component import Component
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Reply
from dsrl.llm import Client, Endpoint, Servers
from tests.llm.running import HELLO, completions, endpoint, expected, run, texts
from tests.llm.server import DROP, HANG, ONE_ONLY, Json, Says, Script, completion, echo, error, serve


class Sum(BaseModel):
    total: int


def test_completions_are_paid_once_and_more_of_them_cost_only_the_rest(tmp_path: Path) -> None:
    with serve() as script:
        described = endpoint(script)
        first, spent = run(described, tmp_path, completions(4))
        assert texts(first) == expected(described, range(4))
        assert (spent.requests, spent.completions, spent.store_hits) == (1, 4, 0)
        assert (spent.input_tokens, spent.cached_tokens, spent.output_tokens) == (10, 4, 12)
        assert spent.usd == (10 * 1.0 + 12 * 2.0) / 1e6
        more, spent = run(described, tmp_path, completions(7))
        assert (more[:4], texts(more)) == (first, expected(described, range(7)))
        assert (spent.requests, spent.completions, spent.store_hits) == (1, 3, 4)
        again, spent = run(replace(described, base_url="http://127.0.0.1:1/v1"), tmp_path, completions(3, first=2))
        assert again == more[2:5]
        assert (spent.requests, spent.store_hits, spent.usd) == (0, 3, 0.0)
        assert spent.hit_usd == pytest.approx(spent.hit_input_tokens * 1e-6 + spent.hit_output_tokens * 2e-6)
        assert [body.get("n", 1) for body in script.bodies] == [4, 3]


def test_usage_of_the_replies_sums_up_to_the_bill(tmp_path: Path) -> None:
    with serve() as script:
        replies, spent = run(endpoint(script), tmp_path, completions(5))
    assert [reply.usage.input_tokens for reply in replies] == [10, 0, 0, 0, 0]
    assert sum(reply.usage.output_tokens for reply in replies) == spent.output_tokens == 15
    assert [reply.call for reply in replies] == [f"{replies[0].call[:-2]}:{i}" for i in range(5)]


@pytest.mark.parametrize("takes_n", [True, False])
@pytest.mark.parametrize(
    "waves", [[(0, 8)], [(0, 3), (0, 8)], [(5, 2), (2, 1), (0, 8)], [(7, 1), (0, 4), (3, 5), (0, 8)]]
)
def test_how_a_request_is_cut_into_waves_changes_no_reply(
    tmp_path: Path, takes_n: bool, waves: list[tuple[int, int]]
) -> None:
    with serve() as script:
        described = endpoint(script, takes_n=takes_n)
        for first, count in waves:
            replies, _ = run(described, tmp_path, completions(count, first))
        assert texts(replies) == expected(described, range(8))
        assert sum(body.get("n", 1) for body in script.bodies) == 8


def test_an_endpoint_that_ignores_n_is_asked_for_the_rest(tmp_path: Path) -> None:
    with serve(ONE_ONLY, ONE_ONLY) as script:
        described = endpoint(script)
        replies, spent = run(described, tmp_path, completions(4))
        assert texts(replies) == expected(described, range(4))
        assert ([body.get("n", 1) for body in script.bodies], spent.completions) == ([4, 3, 2], 4)


def test_more_choices_than_one_request_may_have(tmp_path: Path) -> None:
    with serve() as script:
        replies, _ = run(endpoint(script), tmp_path, completions(300))
        assert sorted(body["n"] for body in script.bodies) == [44, 128, 128]
    assert len({reply.text for reply in replies}) == 300


def test_no_seed_where_the_endpoint_takes_none(tmp_path: Path) -> None:
    with serve() as script:
        run(endpoint(script, takes_seed=False), tmp_path, completions(2))
        assert "seed" not in script.bodies[0]


def test_those_who_ask_at_the_same_time_share_one_request(tmp_path: Path) -> None:
    async def act(client: Client) -> list[list[Reply]]:
        request = client.endpoint.request(HELLO)
        return await asyncio.gather(*[client.complete(request, 3, first) for first in (0, 0, 1)])

    with serve(latency=0.05) as script:
        (one, two, three), spent = run(endpoint(script), tmp_path, act)
        assert one == two
        assert three[:2] == one[1:]
        assert (len(script.bodies), spent.completions) == (2, 4)


def test_a_cancelled_asker_leaves_the_others_to_ask_themselves(tmp_path: Path) -> None:
    async def act(client: Client) -> list[Reply]:
        request = client.endpoint.request(HELLO)
        first = asyncio.create_task(client.complete(request))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(client.complete(request))
        await asyncio.sleep(0.02)
        first.cancel()
        return await second

    with serve(latency=0.1) as script:
        replies, _ = run(endpoint(script), tmp_path, act)
        assert texts(replies) == expected(endpoint(script), range(1))


PASSING: list[object] = [
    error(429),
    error(429, Retry_After="0"),
    error(500),
    error(503, "overloaded"),
    error(408),
    Says(502, b"<html>bad gateway</html>"),
    Says(200, b'{"choices": [{'),
    Says(200, b""),
    Says(200, {"error": {"message": "busy"}}),
    Says(200, completion([])),
    Says(200, [1, 2]),
    Says(200, b"[" * 100_000),
    DROP,
]


@pytest.mark.parametrize("step", PASSING)
def test_what_passes_is_repeated(tmp_path: Path, step: object) -> None:
    with serve(step, step) as script:
        described = endpoint(script)
        replies, spent = run(described, tmp_path, completions(2))
        assert texts(replies) == expected(described, range(2))
    assert (spent.requests, spent.retries, spent.errors, spent.completions) == (3, 2, 0, 2)


def test_what_does_not_pass_in_time_is_missing_and_asked_for_again_in_the_next_run(tmp_path: Path) -> None:
    with serve(*[error(500, "melted")] * 4) as script:
        described = endpoint(script)
        replies, spent = run(described, tmp_path, completions(2))
        assert [(reply.text, reply.error) for reply in replies] == [(None, "500: melted")] * 2
        assert (spent.requests, spent.retries, spent.errors, spent.completions) == (4, 3, 2, 0)
        replies, spent = run(described, tmp_path, completions(2))
        assert (texts(replies), spent.store_hits) == (expected(described, range(2)), 0)


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    with serve(error(429, retry_after_ms="300")) as script:
        run(endpoint(script), tmp_path, completions(1))
        assert script.times[1] - script.times[0] >= 0.3


def test_a_hanging_endpoint_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    with serve(HANG) as script:
        described = endpoint(script, timeout=0.2)
        assert texts(run(described, tmp_path, completions(1))[0]) == expected(described, range(1))
    with (
        serve(HANG, HANG) as script,
        pytest.raises(StageFailed, match=r"no answer within 0\.1 s(.|\n)*teacher\.timeout"),
    ):
        run(endpoint(script, timeout=0.1, max_retries=1), tmp_path, completions(1, first=1))


def test_a_prompt_that_is_too_long_is_missing_and_the_others_go_on(tmp_path: Path) -> None:
    async def act(client: Client) -> list[list[Reply]]:
        return await asyncio.gather(*[completions(1, content=str(i))(client) for i in range(3)])

    with serve(error(400, "too long", "context_length_exceeded")) as script:
        replies, spent = run(endpoint(script), tmp_path, act)
    assert sorted(reply.error or "" for (reply,) in replies) == ["", "", "400: too long"]
    assert (spent.requests, spent.retries) == (3, 0)


FINAL = [
    (error(401, "Incorrect API key provided: sekret-key"), "401: Incorrect API key provided: [*]{3}\n.*DSRL_TEST_KEY"),
    (error(403, "no access"), "403: no access"),
    (error(404, "no such model"), "404: no such model\n.*model's name"),
    (error(400, "unknown field"), "400: unknown field\n.*json_mode"),
    (error(422, "unknown field"), "422: unknown field"),
    (error(429, "You exceeded your quota", "insufficient_quota"), "quota of the account"),
    (Says(405, b""), "405"),
    (Says(404, {"detail": "Not Found"}), "Not Found"),
]


@pytest.mark.parametrize(("step", "words"), FINAL)
def test_what_no_repeat_cures_ends_the_run_at_once(
    tmp_path: Path, step: Says, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", "sekret-key")
    with serve(*[step] * 20) as script:
        with pytest.raises(UserError, match=words) as caught:
            run(endpoint(script, api_key_env="DSRL_TEST_KEY", takes_n=False), tmp_path, completions(20))
        assert len(script.bodies) <= 20
        assert f"m at {script.url}" in str(caught.value)
        assert "sekret" not in str(caught.value)
        assert script.headers[0]["authorization"] == "Bearer sekret-key"


def test_an_address_where_nobody_listens_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(StageFailed, match=f"no connection to {url}"):
        run(Endpoint(model="m", base_url=url, backoff=0.0), tmp_path, completions(3))


def test_a_missing_key_is_seen_before_any_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSRL_TEST_KEY", raising=False)
    with serve() as script:
        with pytest.raises(UserError, match="DSRL_TEST_KEY is not set"):
            run(endpoint(script, api_key_env="DSRL_TEST_KEY"), tmp_path, completions(1))
        assert script.bodies == []


def test_a_proxy_of_the_environment_is_not_used_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serve() as script:
        assert run(endpoint(script), tmp_path, completions(1))[0][0].error is None


ODD: list[tuple[Json, str | None, str | None]] = [
    (completion(["cut"], "length"), "cut", "length"),
    (completion(["half a \ud83d pair"]), "half a \ufffd pair", "stop"),
    (
        {"choices": [{"message": {"content": None, "refusal": "I won't"}, "finish_reason": "stop"}]},
        "I won't",
        "refusal",
    ),
    ({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}, "", "content_filter"),
]


@pytest.mark.parametrize(("body", "text", "finish_reason"), ODD)
def test_odd_replies_are_kept_as_they_are(
    tmp_path: Path, body: Json, text: str | None, finish_reason: str | None
) -> None:
    with serve(Says(200, body)) as script:
        (reply,), spent = run(endpoint(script), tmp_path, completions(1))
        (stored,), _ = run(endpoint(script), tmp_path, completions(1))
        assert len(script.bodies) == 1
    assert (reply.text, reply.finish_reason) == (text, finish_reason)
    assert stored == reply
    assert (spent.usd is None) == ("usage" not in body)


def test_choices_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    body = completion(["zero", "one", "two"])
    body["choices"].reverse()
    with serve(Says(200, body)) as script:
        assert texts(run(endpoint(script), tmp_path, completions(3))[0]) == ["zero", "one", "two"]


def test_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    with serve() as script:
        assert run(endpoint(script, price=None), tmp_path, completions(1))[1].usd is None


def test_ask_repairs_once(tmp_path: Path) -> None:
    def answer(body: Json, choice: int) -> str:
        return '{"total": 4}' if len(body["messages"]) == 3 else "four"

    with serve(answer=answer) as script:
        got, spent = run(endpoint(script), tmp_path, lambda client: client.ask(HELLO, Sum, 2, temperature=0.0))
        assert (got.value, got.error, len(got.calls)) == (Sum(total=4), None, 2)
        assert (spent.completions, spent.repairs) == (2, 1)
        assert script.bodies[0]["response_format"]["json_schema"]["name"] == "sum"
        assert [body["temperature"] for body in script.bodies] == [0.0, 0.0]
        again, _ = run(endpoint(script), tmp_path, lambda client: client.ask(HELLO, Sum, 2, temperature=0.0))
        assert again == got


def test_a_throttling_endpoint_gets_fewer_requests_and_no_reply_is_lost(tmp_path: Path) -> None:
    async def act(client: Client) -> list[list[Reply]]:
        return await asyncio.gather(*[completions(1, content=str(i))(client) for i in range(60)])

    with serve(*[error(429, retry_after_ms="20")] * 40, latency=0.002) as script:
        replies, spent = run(endpoint(script, concurrency=30, max_retries=8), tmp_path, act)
    assert (spent.completions, spent.errors, spent.requests) == (60, 0, 100)
    assert all(reply.error is None for (reply,) in replies)


def test_a_started_server_serves_the_run_and_stops_with_the_client(tmp_path: Path) -> None:
    class Local:
        running = 0

        def start(self) -> Any:
            Local.running += 1
            self.context = serve()
            script = self.context.__enter__()

            class Running:
                url = script.url

                stop = staticmethod(self.stop)

            return Running()

        def stop(self) -> None:
            Local.running -= 1
            self.context.__exit__(None, None, None)

        def key_fields(self) -> str:
            return "local"

    local = type("LocalPart", (Local, Component), {})()
    described = Endpoint(model="m", server=local)
    assert texts(run(described, tmp_path, completions(2))[0]) == expected(described, range(2))
    assert Local.running == 0
    spent = run(described, tmp_path, completions(2))[1]
    assert (spent.requests, spent.store_hits, spent.usd, spent.hit_usd) == (0, 2, 0.0, None)
    with Servers() as servers:
        assert servers.url(described) != servers.url(endpoint(Script(None, echo, 0, "http://x/v1")))  # type: ignore[arg-type]
        assert Local.running == 1
    assert Local.running == 0


def test_nothing_heavy_is_loaded_when_the_store_has_all(tmp_path: Path) -> None:
    with serve() as script:
        run(endpoint(script), tmp_path, completions(2))
    code = """
        import asyncio, sys
        from pathlib import Path
        from dsrl.llm import *
        async def main():
            endpoint = Endpoint(model="m", base_url="http://127.0.0.1:1/v1")
            async with Client(endpoint, ReplyCache(Path(sys.argv[1])), Ledger()) as client:
                request = endpoint.request([{"role": "user", "content": "hello"}])
            print([reply.text for reply in await client.complete(request, 2)])
        asyncio.run(main())
        assert not {"openai", "httpx2", "torch", "numpy"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.startswith("['hello / "), done.stderr


CHILD = """
import asyncio, sys
from pathlib import Path
from dsrl.llm import ReplyCache, Client, Endpoint, Ledger
async def main():
    endpoint = Endpoint(model="m", base_url=sys.argv[1], concurrency=8, backoff=0.0)
    async with Client(endpoint, ReplyCache(Path(sys.argv[2])), Ledger()) as client:
        requests = [endpoint.request([{"role": "user", "content": str(i)}]) for i in range(200)]
        replies = await asyncio.gather(*[client.complete(request) for request in requests])
    print([reply[0].text for reply in replies])
asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_pays_again_for_no_more_than_what_was_in_flight(tmp_path: Path, how: signal.Signals) -> None:
    with serve(latency=0.005) as script:
        command = [sys.executable, "-c", CHILD, script.url, str(tmp_path)]
        killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while len(script.bodies) < (when := random.Random(int(how)).randrange(30, 170)):
            time.sleep(0.001)
        os.kill(killed.pid, how)
        killed.communicate()
        assert killed.returncode != 0
        before = len(script.bodies)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str([expected(Endpoint(model="m"), range(1), str(i))[0] for i in range(200)])
        assert when <= before < 200 <= len(script.bodies) <= 200 + (8 if how == signal.SIGKILL else 0)
