"""The fault server through a plain HTTP client."""

import asyncio
import email.utils
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel, ValidationError

from dsrl.core.errors import UserError
from dsrl.llm.structured.schema import response_format
from tests.command import ENVIRONMENT
from tests.support.faultserver import Faults, FaultServer, Outage, draw, serve
from tests.support.faultserver.__main__ import main
from tests.support.faultserver.bench import measure
from tests.support.faultserver.serve import paid

Json = dict[str, Any]


class Response:
    """Status, headers and body."""

    def __init__(self, status: int, headers: Any, content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def texts(self) -> list[str]:
        return [choice["message"]["content"] for choice in self.json["choices"]]


def ask(server: FaultServer, text: str = "hello", *, timeout: float = 10.0, key: str = "", **fields: Any) -> Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **fields}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return send(server, "POST", "/v1/chat/completions", json.dumps(body).encode(), headers, timeout)


def send(
    server: FaultServer,
    method: str,
    path: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> Response:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=timeout)
    try:
        connection.request(method, path, data, headers or {})
        answer = connection.getresponse()
        return Response(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def running() -> Iterator[FaultServer]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running: FaultServer) -> FaultServer:
    """The shared server, reset to its defaults."""
    plain = {name: getattr(Faults(), name) for name in Faults.__dataclass_fields__}  # type: ignore[attr-defined]
    running.set(**plain, clear=True, restart=True)
    return running


def test_the_same_body_always_gets_the_same_reply(server: FaultServer) -> None:
    first = ask(server, n=3, seed=7)
    assert first.texts == ask(server, n=3, seed=7).texts
    assert len(set(first.texts)) == 3
    assert first.texts != ask(server, "something else", n=3, seed=7).texts


def test_choices_do_not_depend_on_how_they_are_split_into_requests(server: FaultServer) -> None:
    whole = ask(server, n=4, seed=10).texts
    assert [ask(server, seed=10 + i).texts[0] for i in range(4)] == whole


def test_usage_counts_tokens_and_cached_ones(server: FaultServer) -> None:
    server.set(cached=0.5)
    usage = ask(server, "x" * 400, n=2).json["usage"]
    assert usage["prompt_tokens"] == 103
    assert usage["prompt_tokens_details"] == {"cached_tokens": 51}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    stats = server.stats()
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (103, usage["completion_tokens"])


def test_a_reply_over_the_token_limit_is_truncated(server: FaultServer) -> None:
    (choice,) = ask(server, max_tokens=2).json["choices"]
    assert (choice["finish_reason"], len(choice["message"]["content"])) == ("length", 8)


class Part(BaseModel):
    name: str
    kind: str


class Drawing(BaseModel):
    title: str
    parts: list[Part]
    count: int
    weight: float
    final: bool
    note: str | None


def test_replies_fit_the_requested_schema(server: FaultServer) -> None:
    for seed in range(5):
        text = ask(server, seed=seed, response_format=response_format(Drawing, "schema")).texts[0]
        drawing = Drawing.model_validate_json(text)
        assert drawing.parts


def test_schema_enums_bounds_and_references_are_respected(server: FaultServer) -> None:
    schema = {
        "$defs": {"Colour": {"enum": ["red", "green"]}},
        "type": "object",
        "properties": {
            "colour": {"$ref": "#/$defs/Colour"},
            "age": {"type": "integer", "minimum": 3, "maximum": 5},
            "name": {"type": "string", "minLength": 5, "maxLength": 9},
            "list": {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2},
            "either": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(8):
        value = json.loads(ask(server, seed=seed, response_format=form).texts[0])
        assert value["colour"] in ("red", "green")
        assert 3 <= value["age"] <= 5
        assert 5 <= len(value["name"]) <= 9
        assert value["list"] == [1, 1]
        assert value["either"] in (None, True, False)
    broken = {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/$defs/None"}}}
    assert ask(server, response_format=broken).status == 400


def test_votes_mostly_agree(server: FaultServer) -> None:
    server.set(answer="votes")
    tops = []
    for question in range(20):
        numbers = [text.rpartition(" ")[2] for text in ask(server, f"question {question}", n=16).texts]
        tops.append(max(numbers.count(number) for number in numbers))
    assert max(tops) == 16
    assert min(tops) < 14


def test_an_unknown_answer_is_refused_and_changes_nothing(server: FaultServer) -> None:
    server.set(answer="echo")
    assert ask(server, n=2, seed=4).texts == ["hello / 4", "hello / 5"]
    with pytest.raises(ValueError, match="nothing:at_all"):
        server.set(answer="nothing:at_all")
    assert ask(server, n=2, seed=4).texts == ["hello / 4", "hello / 5"]


def test_the_quickstart_teacher_answers(server: FaultServer) -> None:
    server.set(answer="quickstart")
    story = "Ann has 3 coins. She finds 2 coins. How many coins does Ann have now?\n\nEnd with #### and the number."
    assert ask(server, story, n=1, seed=1).status == 200
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    assert ask(server, messages=[image]).status == 400


STATUS_AND_CODE = {
    "429": (429, "rate_limit_exceeded"),
    "500": (500, "server_error"),
    "502": (502, "server_error"),
    "503": (503, "server_error"),
    "quota": (429, "insufficient_quota"),
}


@pytest.mark.parametrize("fault", STATUS_AND_CODE)
def test_error_responses(server: FaultServer, fault: str) -> None:
    server.set(script=[fault, "ok"])
    refused = ask(server)
    assert (refused.status, refused.json["error"]["code"]) == STATUS_AND_CODE[fault]
    assert ask(server).status == 200
    assert [entry["fault"] for entry in server.log()] == [fault, None]


def test_damaged_responses(server: FaultServer) -> None:
    def ask_with(fault: str, **fields: Any) -> Response:
        server.set(script=["ok"])
        server.set(script=[fault])
        return ask(server, **fields)

    for fault in ("truncated", "malformed", "html"):
        with pytest.raises(ValueError, match=r"Expecting|delimiter|Unterminated"):
            assert ask_with(fault).json
    assert "choices" not in ask_with("fields").json
    assert ask_with("empty").json["choices"] == []
    assert len(ask_with("fewer", n=5).json["choices"]) == 2
    assert "usage" not in ask_with("no_usage").json
    assert ask_with("same_ids").json["id"] == "chatcmpl-0"
    server.set(slow=0.001)
    assert ask_with("trickle", n=9).json["choices"]
    with pytest.raises(RemoteDisconnected):
        ask_with("drop")
    with pytest.raises((IncompleteRead, ConnectionResetError)):
        ask_with("cut", n=9)
    with pytest.raises(TimeoutError):
        ask_with("hang", timeout=0.2)
    good = [entry["fault"] for entry in server.log() if entry["served"]]
    assert good == ["fewer", "no_usage", "same_ids", "trickle"]
    assert wait_for(lambda: server.log()[-1]["status"] == 499)


def test_model_faults_are_the_same_in_every_attempt(server: FaultServer) -> None:
    habits = {"length": 0.2, "filter": 0.2, "refusal": 0.2, "not_json": 0.2, "wrong_schema": 0.2}
    server.set(shares=habits)
    choices = ask(server, n=50).json["choices"]
    assert choices == ask(server, n=50).json["choices"]
    assert {choice["finish_reason"] for choice in choices} == {"length", "content_filter", "stop"}
    assert any(choice["message"]["refusal"] for choice in choices)
    assert any((choice["message"]["content"] or "").startswith('{"thing"') for choice in choices)


def test_fault_shares_are_drawn_again_for_each_attempt(server: FaultServer) -> None:
    server.set(shares={"500": 0.3, "empty": 0.2})
    first = [ask(server, f"q{i}").status for i in range(200)]
    assert 30 <= first.count(500) <= 90
    again = [ask(server, f"q{i}").status for i in range(200)]
    assert first != again
    assert {entry["attempt"] for entry in server.log()[200:]} == {1}
    server.set(clear=True)
    assert first == [ask(server, f"q{i}").status for i in range(200)]


@pytest.mark.parametrize(
    ("faults", "fields", "status", "code"),
    [
        ({"models": ["other"]}, {}, 404, "model_not_found"),
        ({"key": "right"}, {"key": "wrong"}, 401, "invalid_api_key"),
        ({"context": 20}, {"text": "x" * 200}, 400, "context_length_exceeded"),
        ({"context": 20}, {"max_tokens": 20}, 400, "context_length_exceeded"),
        ({"takes_n": False}, {"n": 2}, 400, "unsupported_value"),
        ({"takes_schema": False}, {"response_format": {"type": "json_schema"}}, 400, "unsupported_parameter"),
        ({"takes_json": False}, {"response_format": {"type": "json_object"}}, 400, "unsupported_parameter"),
        ({}, {"messages": []}, 400, "invalid_request_error"),
        ({}, {"n": 0}, 400, "invalid_value"),
        ({}, {"seed": "x"}, 400, "invalid_value"),
        ({}, {"stream": True}, 400, "unsupported_value"),
    ],
)
def test_requests_that_no_retry_cures(server: FaultServer, faults: Json, fields: Json, status: int, code: str) -> None:
    server.set(**faults)
    refused = ask(server, **fields)
    assert (refused.status, refused.json["error"]["code"]) == (status, code)


def test_the_right_key_and_model_are_accepted(server: FaultServer) -> None:
    server.set(key="right", models=["m"])
    assert ask(server, key="right").status == 200
    assert [model["id"] for model in send(server, "GET", "/v1/models").json["data"]] == ["m"]
    assert send(server, "GET", "/v1/models/m").json["id"] == "m"
    assert send(server, "GET", "/v1/models/n").status == 404


def test_service_times_depend_on_the_last_message_only() -> None:
    faults = Faults(latency=0.4, sigma=0.8, shortest=0.05, longest=2.0)
    times = sorted(draw.service_seconds(faults, f"q{i}") for i in range(2000))
    assert times[0] >= 0.05
    assert times[-1] == 2.0
    assert 0.37 < times[1000] < 0.43
    jittered = [draw.service_seconds(Faults(latency=0.2, jitter=0.1), str(i)) for i in range(100)]
    assert 0.18 <= min(jittered) < max(jittered) <= 0.22


def test_requests_beyond_the_capacity_get_429(server: FaultServer) -> None:
    server.set(latency=60.0, capacity=3, retry_after=7)
    waiting = [HTTPConnection(urlsplit(server.url).netloc, timeout=10) for _ in range(3)]
    for connection in waiting:
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [{"role": "user"}]}))
    assert wait_for(lambda: server.stats()["in_service"] == 3)
    refused = [ask(server) for _ in range(2)]
    assert [(reply.status, reply.headers["Retry-After"]) for reply in refused] == [(429, "7")] * 2
    waiting.pop().close()
    assert wait_for(lambda: server.stats()["in_service"] == 2)
    server.set(latency=0.0)
    assert ask(server).status == 200
    assert server.stats()["peak_in_service"] == 3
    for connection in waiting:
        connection.close()


def test_forms_of_the_retry_hint(server: FaultServer) -> None:
    server.set(capacity=0, retry_after=0.25, hint="milliseconds")
    assert ask(server).headers["retry-after-ms"] == "250"
    server.set(hint="date", retry_after=100)
    date = email.utils.parsedate_to_datetime(ask(server).headers["Retry-After"])
    assert 90 < date.timestamp() - time.time() < 110
    server.set(hint="none")
    assert ask(server).headers["Retry-After"] is None


def test_a_disconnected_client_frees_its_capacity(server: FaultServer) -> None:
    server.set(latency=30.0, capacity=1)
    with pytest.raises(TimeoutError):
        ask(server, timeout=0.2)
    assert wait_for(lambda: server.stats()["in_service"] == 0)
    assert server.log()[0]["status"] == 499


def test_scheduled_capacity_and_quota_per_minute(server: FaultServer) -> None:
    server.set(schedule=[(0.0, 0), (0.5, 1)], restart=True)
    assert ask(server).status == 429
    assert wait_for(lambda: ask(server).status == 200)
    server.set(schedule=[], requests_per_minute=2)
    assert [ask(server).status for _ in range(3)] == [200, 200, 429]


def test_outages_refuse_connections_or_answer_503(server: FaultServer) -> None:
    server.set(down="503")
    assert ask(server).status == 503
    server.set(down="refuse")
    assert wait_for(lambda: refused(server))
    server.set(down=None)
    assert wait_for(lambda: not refused(server))
    server.set(outages=[Outage(start=0.0, end=0.3)], restart=True)
    assert wait_for(lambda: refused(server))
    assert wait_for(lambda: not refused(server))
    assert ask(server).status == 200


def refused(server: FaultServer) -> bool:
    try:
        ask(server)
    except (ConnectionRefusedError, ConnectionResetError, RemoteDisconnected):
        return True
    return False


def wait_for(condition: Any, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_completions_paid_for_twice_are_counted(server: FaultServer) -> None:
    ask(server, n=3, seed=5)
    ask(server, n=1, seed=7)
    ask(server, "other", n=1, seed=7)
    counts = sorted(server.paid().values())
    assert counts == [1, 1, 1, 2]
    assert paid(server.log(start=1)).total() == 2


def test_unknown_paths_and_invalid_control_requests(server: FaultServer) -> None:
    assert send(server, "GET", "/v1/nothing").status == 404
    assert send(server, "POST", "/v1/chat/completions", b"{").status == 400
    with pytest.raises(ValueError, match="latency"):
        server.set(latency="soon")
    with pytest.raises(ValueError, match="speed"):
        server.set(speed=1)


def test_the_log_is_also_written_to_a_file(tmp_path: Path) -> None:
    with serve(Faults(script=["500"]), log=tmp_path / "log.jsonl") as server:
        ask(server)
        ask(server)
        log = server.log()
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log
    assert [entry["status"] for entry in log] == [500, 200]


def test_impossible_faults_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"1\.2"):
        Faults(shares={"500": 0.6, "hang": 0.6})
    with pytest.raises(ValidationError, match="explode"):
        Faults(shares={"explode": 0.1})
    Faults(shares={"500": 0.6, "length": 0.6})


def test_the_command_line_takes_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--shares", "{500: 2}"]) == UserError.exit_code
    assert "--shares.500" in capsys.readouterr().err


def test_a_port_in_use_is_an_error(server: FaultServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", str(urlsplit(server.url).port)]) == UserError.exit_code
    assert str(urlsplit(server.url).port) in capsys.readouterr().err


def test_the_server_ends_with_its_parent() -> None:
    code = "from tests.support.faultserver import serve\nwith serve() as s:\n  print(s.pid, flush=True)\n  input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    assert wait_for(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def test_throughput_can_be_measured(server: FaultServer) -> None:
    assert asyncio.run(measure(server.url, 200, 8)) > 0
    assert server.stats()["requests"] == 200
