"""Real trainings of a tiny model in real child processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import StageFailed
from dsrl.data.model import Model, Sampling
from dsrl.models.rollout import TransformersRollout
from dsrl.pipeline.state import PipelineState
from dsrl.stages.train import DrGrpo, Grpo, Sft, Trl
from tests.command import ENVIRONMENT
from tests.e2e.tiny import surroundings, tiny_model, tiny_study

pytestmark = pytest.mark.e2e
RL: dict[str, Any] = {
    "learning_rate": 1e-2,
    "prompts_per_step": 4,
    "responses_per_prompt": 8,
    "temperature": 1.0,
    "max_response_tokens": 6,
    "max_steps": 3,
}
STAGE: dict[str, Any] = {"validation": 4, "validation_temperature": 1.0, "checkpoint_every": 2, "threads": 1}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> PipelineState:
    return tiny_study(tiny_model(tmp_path_factory.mktemp("model")))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


def trained(after: PipelineState, folder: Path) -> Model:
    """The trained model, with the path that the runner gives it."""
    assert after.trained is not None
    assert after.trained.path == "model"
    return replace(after.trained, path=str(folder / "scratch" / "model"))


def test_grpo_trains_and_its_model_answers(state: PipelineState, tmp_path: Path) -> None:
    context = surroundings(tmp_path)
    after = Trl(algorithm=Grpo(**RL), **STAGE)(state, context)
    steps = [row for row in rows(context.scratch) if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    fields = {
        "reward",
        "correct",
        "format_ok",
        "loss",
        "kl",
        "entropy",
        "completion_length",
        "zero_variance",
        "seconds",
    }
    assert fields <= steps[0].keys()
    assert all(abs(row["reward"] - 0.9 * row["correct"] - 0.1 * row["format_ok"]) < 1e-6 for row in steps)
    assert any(row["correct"] > 0 for row in steps)
    assert [row["step"] for row in after.figures["validation"]] == [0, 2, 3]
    assert (after.figures["steps"], after.figures["engine"], after.figures["rows"]["out"]) == (3, "trl", 12)
    best = max(after.figures["validation"][1:], key=lambda row: (row["right"], row["step"]))
    assert after.figures["chosen_step"] == best["step"]
    model = trained(after, tmp_path)
    assert model.name == "tiny+grpo"
    assert state.base is not None
    assert model.fingerprint() != state.base.fingerprint()
    engine = TransformersRollout(threads=1, device="cpu")
    assert engine.generate(model, ["1 2"], Sampling(max_tokens=6), 2, context)[0][0].error is None
    context.close()


KILLED = """
import sys
from pathlib import Path
from dsrl.data.model import Model
from tests.e2e import test_train as t
model = Model(name="tiny", path=sys.argv[2], prompt_format="raw", max_length=48, dtype="float32")
t.long_training()(t.tiny_study(model), t.surroundings(Path(sys.argv[1])))
"""


def long_training() -> Trl:
    return Trl(algorithm=DrGrpo(**{**RL, "max_steps": 30, "learning_rate": 1e-3}), **{**STAGE, "checkpoint_every": 4})


def test_killed_training_resumes_and_ends_in_the_same_bytes(state: PipelineState, tmp_path: Path) -> None:
    assert state.base is not None
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a"), str(state.base.path)]
    progress = tmp_path / "a" / "work" / "progress.jsonl"
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        while process.poll() is None and not (progress.is_file() and '"step": 6, "reward"' in progress.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    assert max(row["step"] for row in rows(progress.parent)) < 30
    for name in ("a", "b"):
        context = surroundings(tmp_path / name)
        long_training()(state, context)
        if name == "a":
            assert json.loads((context.scratch / "job.json").read_text())["resume"]
    weights = [(tmp_path / name / "scratch" / "model" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    courses = [[{**row, "seconds": 0} for row in rows(tmp_path / name / "scratch")] for name in ("a", "b")]
    assert courses[0] == courses[1]


def test_adapters_are_trained_resumed_and_merged(state: PipelineState, tmp_path: Path) -> None:
    """Two steps and a resume equal four steps in a row; only linear layers differ from the base model."""
    from transformers import AutoModelForCausalLM

    stages = [Trl(algorithm=Grpo(**{**RL, "max_steps": steps}), **STAGE, lora_rank=4) for steps in (2, 4)]
    for place, stage in (("a", stages[0]), ("a", stages[1]), ("b", stages[1])):
        shutil.rmtree(tmp_path / place / "scratch", ignore_errors=True)
        after = stage(state, surroundings(tmp_path / place))
    assert json.loads((tmp_path / "a" / "scratch" / "job.json").read_text())["resume"]
    weights = [(tmp_path / name / "scratch" / "model" / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    model = trained(after, tmp_path / "b")
    assert state.base is not None
    states = [AutoModelForCausalLM.from_pretrained(one.path).state_dict() for one in (state.base, model)]
    changed = {name for name, values in states[0].items() if not (values == states[1][name]).all()}
    assert changed
    assert all("proj" in name for name in changed)
    assert states[0].keys() == states[1].keys()


def test_loss_that_is_not_finite_fails_the_stage(state: PipelineState, tmp_path: Path) -> None:
    stage = Trl(algorithm=Grpo(**{**RL, "learning_rate": 1e30}), **STAGE)
    with pytest.raises(StageFailed, match="not finite"):
        stage(state, surroundings(tmp_path))


def test_supervised_training_learns_the_solutions(state: PipelineState, tmp_path: Path) -> None:
    stage = Sft(learning_rate=1e-2, batch=6, max_steps=60, max_response_tokens=6, device_batch=3, **STAGE)
    context = surroundings(tmp_path)
    after = replace(stage, checkpoint_every=30)(state, context)
    losses = [row["loss"] for row in rows(context.scratch) if "loss" in row]
    assert losses[-1] < losses[0] / 2
    first, *_, last = after.figures["validation"]
    assert last["right"] > first["right"]
    assert (after.figures["reward_first"], after.figures["algorithm"]) == (None, "sft")
    assert trained(after, tmp_path).name == "tiny+sft"


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def sampling_defaults_without_do_sample(folder: Path) -> None:
    """As in Llama-2-chat and Vicuna: transformers reads this file, but refuses to save it."""
    edit_json(folder / "generation_config.json", temperature=0.9, top_p=0.6)


def no_end_of_text_token(folder: Path) -> None:
    """The generation config alone says which token ends a reply."""
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 1


@pytest.mark.parametrize("change", [sampling_defaults_without_do_sample, no_end_of_text_token])
@pytest.mark.parametrize(
    "stage",
    [
        Sft(**STAGE, batch=4, max_steps=2, max_response_tokens=6),
        Trl(algorithm=Grpo(**{**RL, "max_steps": 2}), **STAGE, lora_rank=4),
    ],
    ids=["sft", "trl"],
)
def test_trained_model_keeps_the_files_of_an_unusual_base_model(
    stage: Sft | Trl, change: Callable[[Path], None], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = tiny_model(base)
    change(base)
    context = surroundings(tmp_path)
    stage(tiny_study(model), context)
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (context.scratch / "model" / name).read_bytes() == (base / name).read_bytes()


CHAT = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{{ '[END]' }}{% endfor %}"


def test_reply_ends_with_the_end_of_turn_of_the_chat_template(tmp_path: Path) -> None:
    """A server that stops only at the template's end of turn would never stop at the tokenizer's end of text."""
    from dsrl.models import huggingface

    tokenizer = huggingface.load_tokenizer(tiny_model(tmp_path))
    end, other = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("2")
    tokenizer.chat_template = CHAT
    assert huggingface.end_of_reply_ids(tokenizer, "raw", [other, end]) == [other]
    assert huggingface.end_of_reply_ids(tokenizer, "chat", [other, end]) == [end]
    tokenizer.chat_template = CHAT.replace("[END]", " 1 ")
    one = tokenizer.convert_tokens_to_ids("1")
    assert huggingface.end_of_reply_ids(tokenizer, "chat", [end]) == [one, end], "not a stop token: both"
