from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.llm import Endpoint, Price, Servers

ASK = [{"role": "user", "content": "2 + 2?"}]
URL = "http://localhost:8000/v1"


class Running:
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.url = "http://127.0.0.1:1/v1"
        log.append("started")

    def stop(self) -> None:
        self.log.append("stopped")


LOG: list[str] = []


@component("tests.test_endpoint.Dialled")
class Dialled(Component):
    wrong: float = 0.1

    def start(self) -> Running:
        return Running(LOG)


class Sample(BaseModel):
    input: str


def call_digest(endpoint: Endpoint, schema: type[BaseModel] | None = None, **sampling: Any) -> str:
    return endpoint.call(endpoint.request(ASK, schema, **sampling)).digest


BASE = Endpoint(model="m", base_url=URL)
SAME = [
    Endpoint(model="m", base_url="http://elsewhere:1/v1"),
    Endpoint(model="m", api_key_env="KEY", concurrency=1, timeout=1.0, max_retries=0, backoff=0.0, takes_n=False),
    Endpoint(model="m", price=Price(input=1.0, output=2.0, date="2026-11-20")),
    Endpoint(model="m", context=100_000, token_limit="max_completion_tokens", json_mode="text", tried="2026-11-20"),
    Endpoint(
        model="m", takes_batch=True, batch=True, requests_per_minute=5, tokens_per_minute=9, outage=1.0, drain=0.0
    ),
    Endpoint(model="m", headers={"X-Title": "dsrl"}),
]
OTHER = [
    Endpoint(model="n"),
    Endpoint(model="m", temperature=0.0),
    Endpoint(model="m", top_p=0.9),
    Endpoint(model="m", max_tokens=5),
    Endpoint(model="m", extra={"top_k": 5}),
    Endpoint(model="m", takes_temperature=False),
    Endpoint(model="m", server=Dialled()),
    Endpoint(model="m", server=Dialled(wrong=0.2)),
]


def test_identity_is_model_request_and_dials_and_not_where_or_how_fast() -> None:
    assert {call_digest(endpoint) for endpoint in SAME} == {call_digest(BASE)}
    assert all(endpoint.key_fields() == BASE.key_fields() for endpoint in SAME)
    digests = {call_digest(endpoint) for endpoint in (BASE, *OTHER)}
    assert len(digests) == len(OTHER) + 1
    assert call_digest(BASE, temperature=0.0) == call_digest(OTHER[1]) == call_digest(BASE, temperature=0)
    assert len({call_digest(BASE, Sample), call_digest(BASE)}) == 2


def test_body_holds_the_endpoint_s_sampling_and_extra_fields() -> None:
    endpoint = Endpoint(model="m", max_tokens=9, extra={"max_tokens": None, "max_completion_tokens": 9})
    assert endpoint.call(endpoint.request(ASK, temperature=0.0)).body == {
        "model": "m",
        "messages": ASK,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_completion_tokens": 9,
    }


def test_the_longest_reply_goes_by_the_endpoint_s_name_for_it() -> None:
    usual, other = Endpoint(model="m"), Endpoint(model="m", token_limit="max_completion_tokens")
    (call, same) = (endpoint.call(endpoint.request(ASK, max_tokens=7)) for endpoint in (usual, other))
    assert (call.body["max_tokens"], same.body["max_completion_tokens"]) == (7, 7)
    assert "max_tokens" not in same.body
    assert (call.digest, call.identity) == (same.digest, same.identity)


def test_a_model_that_takes_no_temperature_is_sent_none() -> None:
    endpoint = Endpoint(model="m", takes_temperature=False)
    assert endpoint.call(endpoint.request(ASK, temperature=0.3)).body.keys() == {"model", "messages", "max_tokens"}


def test_the_way_in_which_an_object_is_asked_for_is_not_what_is_asked() -> None:
    calls = [
        Endpoint(model="m", json_mode=mode).call(BASE.request(ASK, Sample)) for mode in ("schema", "object", "text")
    ]
    assert len({call.digest for call in calls}) == 1
    assert len({str(call.body) for call in calls}) == 3
    assert all(call.identity["messages"] == ASK for call in calls)
    assert calls[0].body_in("text") == calls[2].body


def test_the_window_is_wider_for_batches() -> None:
    assert Endpoint(model="m", concurrency=7).window == 14
    assert Endpoint(model="m", takes_batch=True, batch=True).window == 50_000


LONG = "word " * 2000


def test_a_prompt_that_cannot_fit_is_refused_and_its_largest_part_named() -> None:
    endpoint = Endpoint(model="m", base_url=URL, context=1000, max_tokens=400)
    endpoint.check_prompt([{"role": "user", "content": "short"}])
    with pytest.raises(
        UserError, match=r"task\.instruction is too long for m\n.*at least 1251 tokens.*1250 of them"
    ) as it:
        endpoint.check_prompt(parts={"task.instruction": LONG, "a demo": "x" * 8})
    assert "shorten it" in str(it.value)
    assert "1000 tokens in all" in str(it.value)
    with pytest.raises(UserError, match="begins with `# Passage word word"):
        endpoint.check_prompt([{"role": "user", "content": f"Hello.\n\n# Passage\n{LONG}\n\nReply."}])
    with pytest.raises(UserError, match=r"^max_tokens=2000 leaves 0 of 1000 tokens for the prompt\n.*\n.*lower max_"):
        endpoint.check_prompt([{"role": "user", "content": "short"}], max_tokens=2000)
    Endpoint(model="m", base_url=URL).check_prompt([{"role": "user", "content": LONG}])


@given(st.text(max_size=400), st.integers(1, 50))
def test_no_prompt_is_refused_that_could_fit(text: str, room: int) -> None:
    """A token of usual text has fewer characters than the bound takes it to have."""
    endpoint = Endpoint(model="m", context=room + 1, max_tokens=1)
    if len(text) < 8 * (room + 1):
        endpoint.check_prompt([{"role": "user", "content": text}])


def test_seeds_follow_the_index() -> None:
    call = BASE.call(BASE.request(ASK))
    assert call.seed(7) == call.seed(0) + 7
    assert 0 <= call.seed(0) < 2**28


WRONG = [
    (Endpoint(model="m", base_url="localhost:8000/v1"), "not a URL"),
    (Endpoint(model="m", base_url="ftp://localhost/v1"), "not a URL"),
    (Endpoint(model="m", base_url="http://"), "not a URL"),
    (Endpoint(model="m", base_url="http://host:99999/v1"), "not a URL"),
    (Endpoint(model="m", base_url="http://[::1/v1"), "not a URL"),
    (Endpoint(model="m", base_url=URL, extra={"stream": True}), "extra may not hold stream"),
    (Endpoint(model="m", base_url=URL + "/chat/completions"), f"base_url={URL}"),
    (Endpoint(model="m", base_url=URL, server=Dialled()), "exclude each other"),
    (Endpoint(model="m", base_url=URL, batch=True), "leave batch=false, or set takes_batch=true"),
    (Endpoint(model="m", base_url=URL, headers={"Authorization": "x"}), "headers may not hold Authorization"),
    (Endpoint(model="m"), "neither base_url nor api_key_env"),
    (Endpoint(model="m", api_key_env="DSRL_TEST_KEY"), "export DSRL_TEST_KEY="),
]


@pytest.mark.parametrize(("endpoint", "words"), WRONG)
def test_check_says_what_to_do(endpoint: Endpoint, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", " ")
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        endpoint.check()


def test_check_passes_what_may_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", " secret\n")
    for endpoint in (BASE, Endpoint(model="m", server=Dialled()), Endpoint(model="m", api_key_env="DSRL_TEST_KEY")):
        endpoint.check()
    assert endpoint.api_key() == "secret"
    assert BASE.api_key() == "none"
    assert "secret" not in repr(endpoint)
    assert "secret" not in str(endpoint.key_fields())


@pytest.mark.parametrize(
    "fields", [{"temperature": -1.0}, {"json_mode": "xml"}, {"concurrency": 0}, {"server": 3}, {"max_token": 3}]
)
def test_a_wrong_value_names_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        Endpoint(model="m", **fields)


def test_servers_start_once_and_stop_at_the_end() -> None:
    LOG.clear()
    endpoint = Endpoint(model="m", server=Dialled())
    with Servers() as servers:
        assert servers.url(BASE) == URL
        assert servers.url(endpoint) == servers.url(Endpoint(model="other", server=Dialled()))
        assert LOG == ["started"]
    assert LOG == ["started", "stopped"]
