"""Each provider as its documentation describes it: what it is sent, and what its replies and refusals are taken for."""

import asyncio
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import BaseModel

from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.data.model import Usage
from dsrl.llm import Client, Endpoint, Ledger, ReplyCache, VllmServer
from dsrl.llm.completions import error_text, read_completions
from dsrl.llm.failures import CallError, final_error, http_failure
from dsrl.llm.http import HttpTransport
from dsrl.pipeline.config import build
from tests.llm.server import Json, Says, completion, serve

ASK = [{"role": "user", "content": "Write a sample."}]
KEYS = [f"{name}_API_KEY" for name in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI", "DEEPSEEK", "OPENROUTER")]
NAMES = sorted(path.stem for path in (home() / "conf" / "teacher").glob("[!_]*.yaml"))


class Draft(BaseModel):
    input: str
    output: str


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "not-a-key")
    monkeypatch.setenv("AZURE_OPENAI_RESOURCE", "ours")


@cache
def teacher(name: str) -> Endpoint:
    own = (home() / "conf" / "teacher" / f"{name}.yaml").read_text(encoding="utf-8")
    model = ["teacher.model=m"] if "model: ???" in own else []
    url = ["teacher.base_url=http://localhost:1/v1"] if "base_url: ???" in own else []
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        node = OmegaConf.to_container(compose("config", [f"teacher={name}", *model, *url]).teacher, resolve=True)
    made: Endpoint = build(node, "teacher")
    return made


def bodies(name: str, folder: Path, count: int = 1, schema: type[BaseModel] | None = None) -> list[Json]:
    """What a run sends to the provider: its own settings, with a server of ours in its place."""

    def answer(body: Json, choice: int) -> str:
        return '{"input": "1 + 1?", "output": "2"}'

    async def act(described: Endpoint) -> None:
        async with Client(described, ReplyCache(folder), Ledger()) as client:
            if schema is None:
                await client.complete(client.endpoint.request(ASK), count)
            else:
                assert (await client.ask(ASK, schema)).value is not None

    with serve(answer=answer) as script:
        asyncio.run(act(replace(teacher(name), base_url=script.url, server=None)))
    return script.bodies


SAMPLED: Json = {"temperature": 0.7, "top_p": 1.0}
PLAIN: dict[str, Json] = {
    "gpt4o": {"model": "gpt-4o", "max_tokens": 4000, **SAMPLED},
    "gpt4o_mini": {"model": "gpt-4o-mini", "max_tokens": 4000, **SAMPLED},
    "gpt6_1_sol": {"model": "gpt-6.1-sol", "max_completion_tokens": 16000, "reasoning_effort": "low"},
    "gpt6_1_terra": {
        "model": "gpt-6.1-terra",
        "max_completion_tokens": 4000,
        "reasoning_effort": "none",
        **SAMPLED,
    },
    "gpt6_luna": {"model": "gpt-6-luna", "max_completion_tokens": 4000, "reasoning_effort": "none", **SAMPLED},
    "azure": {"model": "m", "max_tokens": 4000, **SAMPLED},
    "anthropic": {"model": "claude-sonnet-5-5", "max_tokens": 16000},
    "gemini": {"model": "gemini-3.8-flash", "max_tokens": 16000, **SAMPLED},
    "deepseek": {"model": "deepseek-flash", "max_tokens": 4000, "thinking": {"type": "disabled"}, **SAMPLED},
    "openrouter": {"model": "m", "max_tokens": 4000, "provider": {"require_parameters": True}, **SAMPLED},
    "vllm": {"model": "m", "max_tokens": 4000, **SAMPLED},
    "server": {"model": "m", "max_tokens": 4000, **SAMPLED},
    "ollama": {"model": "m", "max_tokens": 4000, **SAMPLED},
    "offline": {"model": "offline-rules-v1", "max_tokens": 400, **SAMPLED},
}
"""The body of a plain request, but for the messages and the seed."""
MANY = {"gpt4o", "gpt4o_mini", "azure", "vllm", "server", "offline"}
"""Those that take several completions in one request."""
SEEDED = {*MANY, "ollama"}
MODES = {"anthropic": "text", "deepseek": "object"}
ADDRESSES = {
    "azure": "https://ours.openai.azure.com/openai/v1/",
    "anthropic": "https://api.anthropic.com/v1/",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai/",
    "deepseek": "https://api.deepseek.com",
    "openrouter": "https://openrouter.ai/api/v1",
    "ollama": "http://localhost:11434/v1",
}


def test_every_teacher_stands_in_the_table() -> None:
    assert set(NAMES) == PLAIN.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_says_what_it_is(name: str) -> None:
    endpoint = teacher(name)
    endpoint.check()
    assert endpoint.base_url == ADDRESSES.get(name, "http://localhost:1/v1" if name == "server" else None)
    assert endpoint.tried is None  # to be changed by whoever tries it
    assert endpoint.context is None or endpoint.context >= 128_000
    assert not endpoint.takes_batch or endpoint.price is None or endpoint.price.batch == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_request(name: str, tmp_path: Path) -> None:
    (body,) = bodies(name, tmp_path)
    seed = body.pop("seed", None)
    assert body == {**PLAIN[name], "messages": ASK}
    assert (seed is not None) == (name in SEEDED)


@pytest.mark.parametrize("name", NAMES)
def test_sixteen_votes(name: str, tmp_path: Path) -> None:
    sent = bodies(name, tmp_path, 16)
    assert sorted(body.get("n", 1) for body in sent) == ([16] if name in MANY else [1] * 16)


@pytest.mark.parametrize("name", NAMES)
def test_an_object_is_asked_for_as_the_provider_takes_it(name: str, tmp_path: Path) -> None:
    (body,) = bodies(name, tmp_path, schema=Draft)
    form, (message,) = body.get("response_format"), body["messages"]
    mode = MODES.get(name, "schema")
    if mode == "schema":
        assert form is not None
        assert form["json_schema"]["strict"] is True
        assert form["json_schema"]["schema"]["required"] == ["input", "output"]
        assert message == ASK[0]
    elif mode == "object":
        assert form == {"type": "json_object"}
        assert "JSON object that fits this schema" in message["content"]
    else:
        assert form is None
        assert "<input>\n...\n</input>" in message["content"]


FILTERED = {"hate": {"filtered": False, "severity": "safe"}}
REPLIES: dict[str, tuple[Json, str, str, Usage]] = {
    "openai, with thoughts": (
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-6.1-sol",
            "service_tier": "default",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "4", "refusal": None, "annotations": []},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 20,
                "completion_tokens": 74,
                "total_tokens": 94,
                "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 64},
            },
        },
        "4",
        "stop",
        Usage(input_tokens=20, cached_tokens=16, output_tokens=74),
    ),
    "azure, with what its filters say": (
        {
            "choices": [
                {
                    "content_filter_results": FILTERED,
                    "finish_reason": "content_filter",
                    "index": 0,
                    "message": {"role": "assistant"},
                }
            ],
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5},
        },
        "",
        "content_filter",
        Usage(input_tokens=5),
    ),
    "anthropic": (
        {
            "id": "msg_1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
            "model": "claude-sonnet-5-5",
            "usage": {"completion_tokens": 6, "prompt_tokens": 14, "total_tokens": 20},
        },
        "4",
        "stop",
        Usage(input_tokens=14, output_tokens=6),
    ),
    "gemini, whose thoughts are in the total only": (
        {
            "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "4", "role": "assistant"}}],
            "model": "gemini-3.8-flash",
            "usage": {"completion_tokens": 2, "prompt_tokens": 9, "total_tokens": 211},
        },
        "4",
        "stop",
        Usage(input_tokens=9, output_tokens=202),
    ),
    "deepseek, with nothing in it": (
        {
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": {"content": ""}}],
            "usage": {
                "prompt_tokens": 30,
                "completion_tokens": 1,
                "total_tokens": 31,
                "prompt_cache_hit_tokens": 10,
                "prompt_cache_miss_tokens": 20,
            },
        },
        "",
        "stop",
        Usage(input_tokens=30, cached_tokens=10, output_tokens=1),
    ),
    "openrouter": (
        {
            "provider": "Somebody",
            "choices": [
                {
                    "native_finish_reason": "STOP",
                    "finish_reason": "stop",
                    "index": 0,
                    "message": {"role": "assistant", "content": "4", "refusal": None, "reasoning": None},
                }
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4, "cost": 0.00001},
        },
        "4",
        "stop",
        Usage(input_tokens=3, output_tokens=1),
    ),
    "vllm 0.32": (
        {
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "#### 5", "refusal": None, "reasoning": None},
                    "finish_reason": "length",
                    "stop_reason": None,
                    "routed_experts": None,
                }
            ],
            "usage": {"prompt_tokens": 18, "total_tokens": 45, "completion_tokens": 27, "prompt_tokens_details": None},
            "kv_transfer_params": None,
        },
        "#### 5",
        "length",
        Usage(input_tokens=18, output_tokens=27),
    ),
    "ollama": (
        {
            "system_fingerprint": "fp_ollama",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
        },
        "4",
        "stop",
        Usage(input_tokens=12, output_tokens=2),
    ),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply(name: str) -> None:
    body, text, finish_reason, usage = REPLIES[name]
    (reply,) = read_completions(json.dumps(body).encode()).replies()
    assert (reply.text, reply.finish_reason, reply.usage) == (text, finish_reason, usage)


def test_blank_lines_that_keep_a_connection_alive_are_passed_over() -> None:
    assert read_completions(b"\n\n\n" + json.dumps(completion(["4"])).encode()).replies()[0].text == "4"


def openai(message: str, code: str | None = None, kind: str = "invalid_request_error") -> Json:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def google(code: int, message: str, status: str, *details: Json) -> list[Json]:
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


def anthropic(kind: str, message: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


LATER = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": FILTERED},
    }
}
ERRORS: list[tuple[str, int, Any, str, str]] = [
    ("openai", 401, openai("Incorrect API key provided", "invalid_api_key"), "final", "Incorrect API key"),
    ("openai", 404, openai("The model `x` does not exist", "model_not_found"), "refused", "does not exist"),
    ("openai", 400, openai("Unsupported parameter: 'max_tokens'", "unsupported_parameter"), "refused", "max_tokens"),
    ("openai", 429, openai("You exceeded your current quota", "insufficient_quota"), "final", "quota"),
    (
        "openai",
        429,
        openai("TokenBucket limit reached", "rate_limit_exceeded", "requests"),
        "throttled",
        "TokenBucket limit",
    ),
    ("openai", 503, openai("The engine is currently overloaded", None, "server_error"), "server", "overloaded"),
    ("azure", 400, AZURE_FILTER, "prompt", "filtered"),
    ("azure", 404, {"error": {"code": "DeploymentNotFound", "message": "no such"}}, "refused", "no such"),
    ("azure", 401, {"error": {"code": "401", "message": "Access denied"}}, "final", "Access denied"),
    ("azure", 429, {"error": {"code": "RateLimitReached", "message": "retry after 2 s"}}, "throttled", "retry after"),
    ("anthropic", 401, anthropic("authentication_error", "invalid x-api-key"), "final", "invalid x-api-key"),
    ("anthropic", 404, anthropic("not_found_error", "model: x"), "refused", "model: x"),
    ("anthropic", 429, anthropic("rate_limit_error", "would exceed"), "throttled", "would exceed"),
    ("anthropic", 529, anthropic("overloaded_error", "Overloaded"), "server", "Overloaded"),
    ("anthropic", 400, anthropic("invalid_request_error", "prompt is too long: 2 > 1"), "prompt", "too long"),
    ("gemini", 400, google(400, "API key not valid.", "INVALID_ARGUMENT"), "refused", "API key not valid"),
    ("gemini", 404, google(404, "models/x is not found", "NOT_FOUND"), "refused", "models/x"),
    ("gemini", 429, google(429, "You exceeded your quota", "RESOURCE_EXHAUSTED", LATER), "throttled", "quota"),
    ("gemini", 503, google(503, "The model is overloaded.", "UNAVAILABLE"), "server", "overloaded"),
    (
        "gemini",
        400,
        google(400, "The input token count (9) exceeds the maximum number of tokens allowed (8).", "INVALID_ARGUMENT"),
        "prompt",
        "input token count",
    ),
    ("deepseek", 402, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), "final", "Balance"),
    ("deepseek", 422, openai("Failed to deserialize"), "refused", "deserialize"),
    ("deepseek", 400, openai("Content Exists Risk", "invalid_request_error"), "prompt", "Risk"),
    ("openrouter", 402, {"error": {"code": 402, "message": "Insufficient credits"}}, "final", "credits"),
    ("openrouter", 403, {"error": {"code": 403, "message": "Your input was flagged"}}, "prompt", "flagged"),
    ("openrouter", 404, {"error": {"code": 404, "message": "No endpoints found"}}, "refused", "No endpoints"),
    ("openrouter", 200, {"error": {"code": 429, "message": "upstream is busy"}}, "throttled", "upstream"),
    ("openrouter", 200, {"error": {"code": 502, "message": "Provider returned error"}}, "server", "Provider"),
    ("openrouter", 200, completion(["half"], "error"), "reply", "half"),
    ("deepseek", 200, completion(["half"], "insufficient_system_resource"), "reply", "half"),
    ("vllm 0.8", 400, {"object": "error", "message": "bad temperature", "code": 400}, "refused", "bad temperature"),
    (
        "vllm 0.32",
        400,
        {"error": {"message": "This model's maximum context length is 256 tokens.", "type": "BadRequestError"}},
        "prompt",
        "256 tokens",
    ),
    ("vllm 0.32", 404, {"error": {"message": "The model `nope` does not exist.", "code": 404}}, "refused", "nope"),
    ("ollama", 404, openai('model "x" not found, try pulling it first', None, "api_error"), "refused", "pulling"),
    ("another server", 404, {"detail": "Not Found"}, "refused", "Not Found"),
    ("a web site", 404, "<html>no such page</html>", "refused", "no such page"),
]


@pytest.mark.parametrize(("provider", "status", "body", "kind", "words"), ERRORS)
def test_an_error(provider: str, status: int, body: Any, kind: str, words: str) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    if status == 200:
        with pytest.raises(CallError) as caught:
            read_completions(text.encode())
        failure = caught.value
    else:
        failure = http_failure(status, *error_text(text), {})
    assert (failure.kind, provider) == (kind, provider)
    assert words in str(failure)


def test_google_s_own_way_to_ask_for_a_pause_is_heeded() -> None:
    async def act(url: str) -> CallError:
        wire = HttpTransport(Endpoint(model="m", base_url=url), url)
        try:
            with pytest.raises(CallError) as caught:
                await wire.send({"model": "m", "messages": ASK})
            return caught.value
        finally:
            await wire.close()

    with serve(Says(429, google(429, "slowly", "RESOURCE_EXHAUSTED", LATER))) as script:
        failure = asyncio.run(act(script.url))
    assert (failure.kind, failure.retry_after) == ("throttled", 34.07)


UNTAKEN = [
    ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "token_limit=max_c"),
    ("Unsupported value: 'temperature' does not support 0.7 with this model.", "takes_temperature=false"),
    ("`temperature` and `top_p` are deprecated for this model.", "takes_temperature=false"),
    ("Unknown name seed: Cannot find field.", "takes_seed=false"),
    ("max_tokens is too large: 99999.", "lower max_tokens"),
    ("Invalid 'n': only 1 is allowed", "takes_n=false"),
    ("something else", "adapt the endpoint"),
]


@pytest.mark.parametrize(("message", "step"), UNTAKEN)
def test_a_refused_field_is_answered_with_the_knob_for_it(message: str, step: str) -> None:
    failure = http_failure(400, *error_text(json.dumps(openai(message))), {})
    assert failure.kind == "refused"
    assert step in str(final_error(failure, teacher("gpt4o"), "https://x/v1"))


WRONG_KEY = [
    Says(401, openai("no", "invalid_api_key")),
    Says(400, google(400, "API key not valid.", "INVALID_ARGUMENT")),
]


@pytest.mark.parametrize("step", WRONG_KEY)
def test_a_wrong_key_is_named_by_its_variable(step: Says, tmp_path: Path) -> None:
    async def act(url: str) -> None:
        described = replace(teacher("gemini"), base_url=url)
        async with Client(described, ReplyCache(tmp_path), Ledger()) as client:
            await client.complete(client.endpoint.request(ASK))

    with serve(*[step] * 3) as script, pytest.raises(UserError, match="check the key in GEMINI_API_KEY") as caught:
        asyncio.run(act(script.url))
    assert "not-a-key" not in str(caught.value)


def test_headers_of_ours_go_along(tmp_path: Path) -> None:
    async def act(described: Endpoint) -> None:
        async with Client(described, ReplyCache(tmp_path), Ledger()) as client:
            await client.complete(client.endpoint.request(ASK))

    with serve() as script:
        asyncio.run(act(Endpoint(model="m", base_url=script.url, headers={"X-Title": "dsrl"})))
    assert script.headers[0]["x-title"] == "dsrl"


def test_a_server_of_our_own_is_known_by_the_model_it_serves() -> None:
    endpoint = teacher("vllm")
    assert isinstance(endpoint.server, VllmServer)
    assert endpoint.server.model == endpoint.model == "m"
    assert endpoint.server.log.endswith("/vllm.log")
