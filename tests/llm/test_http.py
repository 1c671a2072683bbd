import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.core.http_client import proxy_arguments
from dsrl.llm import Endpoint
from dsrl.llm.completions import error_text, read_completions
from dsrl.llm.failures import CallError
from dsrl.llm.http import PUBLIC_URL, HttpTransport
from tests.llm.running import completions, endpoint, run, texts
from tests.llm.server import Says, completion, serve

PROXIES = [
    ({}, "https://api.example.com/v1", {}),
    ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.example.com/v1", {"proxy": "http://proxy:3128"}),
    ({"HTTPS_PROXY": "http://proxy:3128"}, "http://api.example.com/v1", {}),
    ({"ALL_PROXY": "http://proxy:3128"}, "http://api.example.com/v1", {"proxy": "http://proxy:3128"}),
    ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, "https://api.example.com/v1", {}),
    ({"HTTP_PROXY": "http://proxy:3128"}, "http://localhost:8000/v1", {}),
    (
        {"HTTP_PROXY": "http://me:p%40ss@proxy:3128"},
        "http://api.example.com/v1",
        {"proxy": "http://proxy:3128", "headers": {"Proxy-Authorization": "Basic bWU6cEBzcw=="}},
    ),
    (
        {"HTTPS_PROXY": "http://me:pw@proxy:3128"},
        "https://api.example.com/v1",
        {"proxy": "http://proxy:3128", "proxy_headers": {"Proxy-Authorization": "Basic bWU6cHc="}},
    ),
]


@pytest.mark.parametrize(("environment", "url", "expected"), PROXIES)
def test_the_proxy_of_the_environment(
    environment: dict[str, str], url: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_arguments(url) == expected


def test_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", "sekret")
    with serve() as script:
        run(endpoint(script, headers={"X-Title": "dsrl"}), tmp_path / "a", completions(1))
        run(endpoint(script, api_key_env="DSRL_TEST_KEY"), tmp_path / "b", completions(1))
        without, with_key = script.headers
    assert (without["x-title"], without["content-type"]) == ("dsrl", "application/json")
    assert without["user-agent"].startswith("dsrl/")
    assert "authorization" not in without
    assert with_key["authorization"] == "Bearer sekret"


def test_a_redirect_is_followed_with_the_body(tmp_path: Path) -> None:
    with serve() as target, serve(Says(307, {}, {"Location": f"{target.url}/chat/completions"})) as script:
        assert run(endpoint(script), tmp_path, completions(1))[0][0].error is None
        assert target.bodies == script.bodies


def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", "se\r\nkret")
    with serve() as script, pytest.raises(UserError, match="check base_url and the key") as caught:
        run(endpoint(script, api_key_env="DSRL_TEST_KEY"), tmp_path, completions(1))
    assert "kret" not in str(caught.value)


def test_tls_and_the_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_TEST_KEY", "sekret")

    async def opened() -> str:
        wire = HttpTransport(Endpoint(model="m", api_key_env="DSRL_TEST_KEY"), None)
        await wire.close()
        return wire.url

    assert asyncio.run(opened()) == PUBLIC_URL


INSIDE_200 = [
    ({"error": {"code": 429, "message": "upstream is busy"}}, "throttled"),
    ({"error": {"code": 502, "message": "upstream is down"}}, "server"),
    ({"error": {"message": "busy"}}, "reply"),
    (completion(["half"], "error"), "reply"),
    ({"choices": []}, "reply"),
    ({"detail": "Not Found"}, "foreign"),
]


@pytest.mark.parametrize(("body", "kind"), INSIDE_200)
def test_errors_that_come_with_status_200(body: Any, kind: str) -> None:
    with pytest.raises(CallError) as caught:
        read_completions(json.dumps(body).encode())
    assert caught.value.kind == kind


ERRORS = [
    ('{"error": {"code": "invalid_api_key", "message": "no"}}', ("invalid_api_key", "no")),
    ('[{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]', ("400", "no")),
    ('{"type": "error", "error": {"type": "overloaded_error", "message": "no"}}', ("overloaded_error", "no")),
    ('{"object": "error", "message": "no", "code": 400}', ("400", "no")),
    (" no\n", ("", "no")),
]


@pytest.mark.parametrize(("text", "expected"), ERRORS)
def test_error_bodies_of_several_providers(text: str, expected: tuple[str, str]) -> None:
    assert error_text(text) == expected


def test_spaces_before_the_json_keep_a_connection_alive_and_are_no_damage(tmp_path: Path) -> None:
    with serve(Says(200, b"\n \n" + json.dumps(completion(["fine"])).encode())) as script:
        assert texts(run(endpoint(script), tmp_path, completions(1))[0]) == ["fine"]
