"""Starting, ending and restarting vLLM, with a test program in its place."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Model, Sampling
from dsrl.models.rollout import VllmRollout
from dsrl.models.rollout.vllm import RAW_TEMPLATE, model_flags
from dsrl.pipeline.context import Context

FAKE = """\
#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
flags = dict(flag[2:].split("=", 1) for flag in sys.argv[3:] if "=" in flag)
starts = Path({starts!r})
starts.write_text((starts.read_text() if starts.exists() else "") + json.dumps(sys.argv[2:]) + chr(10))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == flags["served-model-name"]
        if len(starts.read_text().splitlines()) <= {dies}:
            os._exit(3)
        text = body["messages"][0]["content"] + (" raw" if body.get("add_special_tokens") else "")
        message = {{"role": "assistant", "content": text}}
        choices = [dict(index=i, finish_reason="stop", message=message) for i in range(body.get("n") or 1)]
        answer = json.dumps(dict(id="1", object="chat.completion", created=1, model=body["model"], choices=choices))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass

HTTPServer((flags["host"], int(flags["port"])), Handler).serve_forever()
"""
SAMPLING = Sampling(temperature=0.5, max_tokens=7)


def rollout(folder: Path, dies: int = 0, **dials: Any) -> VllmRollout:
    """The first `dies` starts end at their first request."""
    path = folder / "vllm"
    path.write_text(FAKE.format(python=sys.executable, starts=str(folder / "starts"), dies=dies))
    path.chmod(0o755)
    return VllmRollout(command=str(path), log=str(folder / "vllm.log"), outage=0.5, **dials)


def starts(folder: Path) -> list[list[str]]:
    path = folder / "starts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 256}))
    return Model(name="m", path=str(folder), prompt_format="raw", max_length=8192, dtype="float32")


def test_cached_replies_start_no_server(tmp_path: Path, context: Context, model: Model) -> None:
    engine = rollout(tmp_path)
    first = engine.generate(model, ["one", "two"], SAMPLING, 2, context)
    assert [[reply.text for reply in own] for own in first] == [["one raw"] * 2, ["two raw"] * 2]
    assert engine.generate(model, ["one", "two"], SAMPLING, 2, context) == first
    assert len(starts(tmp_path)) == 1
    assert engine.cached_replies(model.locate(), ["one", "two"], SAMPLING, 3, context.reply_cache).completions == 4
    chat = engine.generate(replace(model, prompt_format="chat"), ["one"], SAMPLING, 1, context)
    assert chat[0][0].text == "one"
    assert len(starts(tmp_path)) == 2


def test_a_session_keeps_one_server(tmp_path: Path, context: Context, model: Model) -> None:
    with rollout(tmp_path, dies=1).session(model, context) as server:
        for count in (1, 2, 2, 3):
            assert len(server.generate(model, ["one"], SAMPLING, count, context)[0]) == count
    assert len(starts(tmp_path)) == 2, "the first has died at its first request"
    assert server.running is None


def test_a_server_that_dies_is_restarted_once(tmp_path: Path, context: Context, model: Model) -> None:
    found = rollout(tmp_path, dies=1).generate(model, ["one"], SAMPLING, 2, context)
    assert [reply.text for reply in found[0]] == ["one raw"] * 2
    assert len(starts(tmp_path)) == 2
    assert any("started again" in warning for warning in context.progress.warnings)


def test_a_server_that_dies_twice_fails_the_stage(tmp_path: Path, context: Context, model: Model) -> None:
    with pytest.raises(StageFailed):
        rollout(tmp_path, dies=9).generate(model, ["one"], SAMPLING, 1, context)
    assert len(starts(tmp_path)) == 2


def test_flags_follow_the_prompt_format_and_context_length(model: Model) -> None:
    raw, chat = model_flags(model), model_flags(replace(model, prompt_format="chat", max_length=128))
    assert raw["chat-template"] == RAW_TEMPLATE
    assert "chat-template" not in chat
    assert (raw["max-model-len"], chat["max-model-len"]) == (256, 128)
    assert raw["generation-config"] == "vllm", "the model's own defaults of sampling are not ours"


def test_check_refuses_a_missing_vllm() -> None:
    with pytest.raises(UserError, match="vLLM is not installed"):
        VllmRollout(command="no-such-vllm").check()
