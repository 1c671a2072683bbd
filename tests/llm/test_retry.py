"""What is repeated, for how long, and what ends the run, against a real server."""

import asyncio
from pathlib import Path

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Reply
from dsrl.llm import Client
from dsrl.llm.ratelimit import controller
from dsrl.llm.refusals import MAX_REFUSED
from tests.llm.running import completions, endpoint, expected, run, texts
from tests.llm.server import DROP, HANG, Says, completion, error, serve


async def all_of(client: Client, count: int) -> list[Reply]:
    replies = await asyncio.gather(*[completions(1, content=str(i))(client) for i in range(count)])
    return [reply for (reply,) in replies]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An open breaker tries again soon."""
    monkeypatch.setattr(controller, "MAX_PROBE_DELAY", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", [error(503), error(500), DROP, Says(200, b"<html>moved</html>")])
def test_an_outage_costs_nobody_his_retries(tmp_path: Path, step: object, caplog: pytest.LogCaptureFixture) -> None:
    before: list[object] = [Says(200, completion(["fine"]))] * 6
    with serve(*before, *[step] * 60) as script:
        described = endpoint(script, max_retries=3, concurrency=6)

        async def act(client: Client) -> list[Reply]:
            await all_of(client, 6)
            return await asyncio.gather(*[one(client, i) for i in range(6, 18)])

        async def one(client: Client, number: int) -> Reply:
            (reply,) = await completions(1, content=str(number))(client)
            return reply

        replies, spent = run(described, tmp_path, act)
        assert texts(replies) == [expected(described, range(1), str(i))[0] for i in range(6, 18)]
        assert (spent.errors, spent.requests, spent.completions) == (0, 6 + 60 + 12, 18)


@pytest.mark.usefixtures("impatient")
def test_an_endpoint_that_stays_down_ends_the_run_and_what_came_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(Says(200, completion(["fine"])), *[error(503, "melted")] * 100_000) as script:
        described = endpoint(script, outage=1.5)

        async def act(client: Client) -> list[Reply]:
            await all_of(client, 1)
            return await all_of(client, 8)

        with pytest.raises(StageFailed, match=r"m is down: no reply for .*\n.*503: melted\n.*outage"):
            run(described, tmp_path, act)
        assert caplog.text.count("retrying every few seconds, giving up after 1.5 s") == 1
        assert run(described, tmp_path, completions(1, content="0"))[1].store_hits == 1


def test_being_turned_away_uses_up_no_retries(tmp_path: Path) -> None:
    with serve(*[error(429, retry_after_ms="1")] * 12) as script:
        replies, spent = run(endpoint(script, max_retries=0), tmp_path, completions(1))
        assert texts(replies) == expected(endpoint(script), range(1))
    assert (spent.requests, spent.throttled, spent.errors) == (13, 12, 0)


def test_an_endpoint_that_turns_all_away_for_too_long_ends_the_run(tmp_path: Path) -> None:
    with (
        serve(*[error(429, "slow down", Retry_After="86400")] * 100) as script,
        pytest.raises(StageFailed, match=r"throttles every request(.|\n)*asks to wait 86400 s"),
    ):
        run(endpoint(script, outage=0.3), tmp_path, completions(1))
    assert len(script.bodies) == 2


FOREIGN = [Says(200, b"<!doctype html><title>Log in</title>"), Says(200, {"hello": "world"}), Says(200, [1])]


@pytest.mark.parametrize("step", FOREIGN)
def test_what_is_no_chat_server_is_said_at_once(tmp_path: Path, step: Says) -> None:
    with serve(*[step] * 50) as script:
        with pytest.raises(UserError, match=r"does not answer as an OpenAI-compatible server does(.|\n)*base_url"):
            run(endpoint(script, max_retries=50), tmp_path, completions(1))
        assert len(script.bodies) == 3


SHUT = b"<!DOCTYPE HTML>\n<html><head><title>Error\n response</title></head><body><h1>no POST here</h1></body></html>"


@pytest.mark.parametrize("status", [500, 501, 505])
def test_a_web_server_that_knows_no_chat_is_said_after_three_tries(tmp_path: Path, status: int) -> None:
    with serve(*[Says(status, SHUT)] * 50) as script:
        with pytest.raises(UserError, match=r"does not answer as an OpenAI(.|\n)*base_url") as caught:
            run(endpoint(script, max_retries=0), tmp_path, completions(1))
        assert len(script.bodies) == 3
    assert f"{status}: a web page: Error response\n" in str(caught.value)


def test_pages_of_a_gateway_before_the_first_completion_are_an_outage(tmp_path: Path) -> None:
    with serve(*[Says(503, SHUT)] * 3) as script:
        replies, _ = run(endpoint(script), tmp_path, completions(1))
        assert texts(replies) == expected(endpoint(script), range(1))


def test_where_all_requests_time_out_from_the_start_the_run_ends_soon(tmp_path: Path) -> None:
    with serve(*[HANG] * 1000) as script:
        with pytest.raises(StageFailed, match=r"every request timed out(.|\n)*raise the endpoint's timeout"):
            run(endpoint(script, timeout=0.2, max_retries=1), tmp_path, lambda client: all_of(client, 4))
        assert 4 <= len(script.bodies) <= 8


def test_a_time_out_after_a_reply_is_a_failure_of_its_request(tmp_path: Path) -> None:
    with serve(Says(200, completion(["fine"])), *[HANG] * 2) as script:

        async def act(client: Client) -> list[Reply]:
            await all_of(client, 1)
            return await completions(1, content="slow")(client)

        (reply,), spent = run(endpoint(script, timeout=0.3, max_retries=1), tmp_path, act)
    assert "no answer within" in (reply.error or "")
    assert spent.errors == 1


@pytest.mark.usefixtures("impatient")
def test_an_outage_of_time_outs_after_a_reply_tells_of_the_time_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(Says(200, completion(["fine"])), *[HANG] * 1000) as script:

        async def act(client: Client) -> list[Reply]:
            await all_of(client, 1)
            return await all_of(client, 8)

        with pytest.raises(StageFailed, match=r"m is down(.|\n)*slow rather than down, raise the endpoint's timeout"):
            run(endpoint(script, timeout=0.2, max_retries=50, outage=2.0), tmp_path, act)
    assert "if it is only slow, raise the endpoint's timeout (now 0.2 s" in caplog.text


USAGES: list[tuple[object, int, float | None]] = [
    ({"prompt_tokens": None, "completion_tokens": 3}, 3, None),
    ({"prompt_tokens": None, "completion_tokens": None}, 0, None),
    ({"prompt_tokens": "many", "completion_tokens": 3, "prompt_tokens_details": [1]}, 3, None),
    ({"prompt_tokens": 10}, 0, None),
    ({"prompt_tokens": 10, "completion_tokens": -5}, 0, None),
    ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 13}, 3, 16e-6),
    ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}}, 3, 16e-6),
    ({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": "?"}, 3, 16e-6),
    ([], 0, None),
    ("free", 0, None),
    (None, 0, None),
]


@pytest.mark.parametrize(("usage", "output", "usd"), USAGES)
def test_no_token_count_costs_a_reply(tmp_path: Path, usage: object, output: int, usd: float | None) -> None:
    body = completion(["fine"], usage=usage, model=7)
    body["choices"][0] |= {"index": None}
    with serve(Says(200, body)) as script:
        (reply,), spent = run(endpoint(script), tmp_path, completions(1))
        assert (reply.text, reply.error, len(script.bodies)) == ("fine", None, 1)
    assert spent.output_tokens == output
    assert spent.usd == pytest.approx(usd)


def test_foreign_answers_after_a_completion_are_failures_of_their_request(tmp_path: Path) -> None:
    with serve(Says(200, completion(["fine"])), *[FOREIGN[0]] * 4) as script:

        async def act(client: Client) -> list[Reply]:
            await all_of(client, 1)
            return await completions(1, content="other")(client)

        (reply,), spent = run(endpoint(script), tmp_path, act)
    assert "not a chat completion" in (reply.error or "")
    assert spent.errors == 1


def test_prompts_that_are_refused_from_the_start_end_the_run(tmp_path: Path) -> None:
    refusal = error(400, "maximum context length is 10 tokens")
    with serve(*[refusal] * 1000) as script:
        with pytest.raises(UserError, match=f"last {MAX_REFUSED} were all refused(.|\n)*10 tokens(.|\n)*instruction"):
            run(endpoint(script, concurrency=4), tmp_path, lambda client: all_of(client, 200))
        assert MAX_REFUSED <= len(script.bodies) <= MAX_REFUSED + 4


def test_a_refused_prompt_is_not_sent_again_in_this_run(tmp_path: Path) -> None:
    with serve(Says(200, completion(["fine"])), error(400, "too long", "context_length_exceeded")) as script:

        async def act(client: Client) -> list[Reply]:
            await all_of(client, 1)
            return [(await completions(1, content="long")(client))[0] for _ in range(3)]

        replies, spent = run(endpoint(script), tmp_path, act)
        assert ({reply.error for reply in replies}, len(script.bodies)) == ({"400: too long"}, 2)
        assert (spent.requests, spent.errors) == (2, 3)


def test_a_prompt_over_the_context_is_never_sent(tmp_path: Path) -> None:
    with serve() as script:
        (reply,), spent = run(endpoint(script, context=5000), tmp_path, completions(1, content="word " * 10_000))
        assert "too long for m" in (reply.error or "")
        assert (script.bodies, spent.requests, spent.errors) == ([], 0, 1)


def test_requests_go_out_in_the_order_of_asking_and_repeats_keep_their_place(tmp_path: Path) -> None:
    with serve(error(500), latency=0.02) as script:
        run(endpoint(script, concurrency=1), tmp_path, lambda client: all_of(client, 5))
        order = [body["messages"][0]["content"] for body in script.bodies]
        assert order in (["0", "0", "1", "2", "3", "4"], ["0", "1", "0", "2", "3", "4"])


def test_status_counts_what_happens(tmp_path: Path) -> None:
    with serve(error(429, retry_after_ms="1"), latency=0.05) as script:

        async def act(client: Client) -> None:
            assert (client.status().requests, client.status().ceiling) == (0, 4)
            asked = asyncio.create_task(all_of(client, 10))
            while (status := client.status()).in_flight < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert (status.limit, status.breaker) == (4, None)
            assert 0 < status.waiting <= 6
            await asked
            status = client.status()
            assert (status.in_flight, status.waiting, status.requests, status.throttled) == (0, 0, 11, 1)
            assert status.requests_per_second > 0

        run(endpoint(script, concurrency=4), tmp_path, act)
