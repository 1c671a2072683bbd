from dataclasses import replace

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Model, Sampling
from dsrl.llm import Endpoint
from dsrl.models.rollout import ServerRollout
from dsrl.pipeline.context import Context
from tests.llm.server import serve

MODEL = Model(name="served")
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=7)


def rollout(url: str) -> ServerRollout:
    return ServerRollout(endpoint=Endpoint(model="served", base_url=url, max_tokens=99))


def test_replies_are_in_order_and_cached(context: Context) -> None:
    with serve() as server:
        engine = rollout(server.url)
        first = engine.generate(MODEL, ["one", "two"], SAMPLING, 2, context)
        assert [[reply.text and reply.text.split()[0] for reply in own] for own in first] == [["one"] * 2, ["two"] * 2]
        more = engine.generate(MODEL, ["one", "two"], SAMPLING, 3, context)
        assert [own[:2] for own in more] == first
        assert [body.get("n", 1) for body in server.bodies] == [2, 2, 1, 1]
        assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in server.bodies} == {(0.5, 0.9, 7)}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (replace(MODEL, prompt_format="raw"), "prompt_format=raw"),
        (replace(MODEL, name="served+grpo"), "another model"),
    ],
)
def test_unsupported_models_are_refused(context: Context, model: Model, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rollout("http://127.0.0.1:9/v1").generate(model, ["one"], SAMPLING, 1, context)


def test_check_refuses_a_server_without_a_url() -> None:
    with pytest.raises(UserError, match="base_url"):
        ServerRollout(endpoint=Endpoint(model="served", base_url="localhost:8000")).check()
