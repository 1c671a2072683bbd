"""Unmodified veRL, Ray and vLLM on the CPU, started from the command line. veRL is launched four times.

Needs `make verl`, or the interpreter of veRL's environment in DSRL_VERL_PYTHON.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsrl.stages.train.rl import ENGINES
from tests.command import CHECKOUT, ENVIRONMENT
from tests.e2e.rays import abandoned
from tests.e2e.runs import SMALL, Place
from tests.e2e.tiny import tiny_model

INTERPRETER = Path(os.environ.get("DSRL_VERL_PYTHON") or CHECKOUT / ".venv-verl" / "bin" / "python")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not INTERPRETER.is_file(), reason="needs veRL's environment: make verl"),
]
VERL = (*SMALL, "train=verl", f"train.python={INTERPRETER}", "train.checkpoint_every=1")
GRPO = (*VERL, "rl.max_steps=3", "rl.kl=0.01")
PPO = ("rl=ppo", "rl.learning_rate=3e-4", "rl.critic_learning_rate=1e-3", "rl.max_steps=2", "rl.warmup_steps=0")
ADAPTERS = ("train.lora_rank=4", "train.lora_alpha=8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Place:
    return Place(tmp_path_factory.mktemp("verl"), cache)


def course(folder: Path) -> list[dict[str, Any]]:
    path = folder / "progress.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def at_work(place: Place) -> list[dict[str, Any]]:
    """Progress rows of the running training."""
    return [row for folder in (place.store / "work" / "train").glob("*/") for row in course(folder)]


def reached(place: Place, step: int) -> bool:
    """Whether the step is finished."""
    return any(row["step"] == step and "reward" in row for row in at_work(place))


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def in_the_trainers(code: str, *arguments: str, **variables: str) -> str:
    cpu = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "dsrl.stages.train.verl.cpu"}
    environment = {**ENVIRONMENT, **cpu, **variables}
    command = [str(INTERPRETER), "-P", "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


VALIDATE = """
import sys
from dataclasses import replace
from dsrl.data.model import Model
from dsrl.stages.train import Dapo, DrGrpo, Grpo, Gspo, Ppo, ReinforcePlusPlus, Remax, Rloo, Verl
from dsrl.stages.train.verl.launch import validate
from dsrl.stages.train.verl.config import verl_config
from dsrl.stages.train.verl.config_schema import compose_config
for gpus in (0, 2):
    for algorithm in (Grpo(), DrGrpo(), Ppo(), Rloo(), ReinforcePlusPlus(), Remax(), Dapo(), Gspo()):
        job = replace(Verl(algorithm=algorithm, gpus=gpus).assumed_job(), model=Model(name="m", path=sys.argv[1]))
        validate(compose_config(verl_config(job, 100, validates=True)))
        print("fine:", algorithm.label, gpus)
"""


def test_every_algorithm_passes_veRLs_own_checks(tmp_path: Path) -> None:  # noqa: N802 - its name
    model = tiny_model(tmp_path)
    said = in_the_trainers(VALIDATE, str(model.path))
    for name in ENGINES["verl"]:
        assert f"fine: {name} 0" in said
        assert f"fine: {name} 2" in said


GREEDY = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM, SamplingParams
folder, prompt = sys.argv[1:]
ids = AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
own = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=16)[0, len(ids):].tolist()
engine = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=len(ids) + 16)
(drawn,) = engine.generate([{"prompt_token_ids": ids}], SamplingParams(temperature=0, max_tokens=16))
print("replies:", json.dumps([own, list(drawn.outputs[0].token_ids)]))
"""


def greedy(model: Path, prompt: str) -> tuple[list[int], list[int]]:
    """Tokens of the greedy reply from transformers and from vLLM."""
    in_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    said = in_the_trainers(GREEDY, str(model), prompt, **in_process)
    (line,) = [line for line in said.splitlines() if line.startswith("replies:")]
    own, drawn = json.loads(line.removeprefix("replies:"))
    return own, drawn


FOLD = """
import sys, torch
from dataclasses import replace
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from dsrl.stages.train import Grpo, Verl
from dsrl.stages.train.verl.export import merge_adapters
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
names = list(base.state_dict())
model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False))
own = merge_adapters(dict(model.state_dict()), Verl(algorithm=Grpo(), gpus=0, lora_rank=4, lora_alpha=8).resources())
theirs = model.merge_and_unload().state_dict()
assert list(theirs) == names and set(own) == set(names), set(own) ^ set(names)
print("largest difference:", max(float((own[name] - theirs[name]).abs().max()) for name in names))
"""


def test_adapters_are_merged_as_peft_merges_them(tmp_path: Path) -> None:
    said = in_the_trainers(FOLD, str(tiny_model(tmp_path).path))
    assert float(said.split("largest difference:")[1]) < 1e-6


APART = """
from importlib.util import find_spec
from pathlib import Path
from ray.runtime_context import RuntimeContext
RuntimeContext.get_job_id = lambda self: "01000000"
import dsrl.stages.train.verl.socket_names
folder = Path(find_spec("verl").submodule_search_locations[0]) / "workers" / "rollout" / "vllm_rollout"
both = [(folder / name).read_text().count("rl-colocate-zmq-{job_id}-") for name in ("vllm_rollout.py", "utils.py")]
print("name:", RuntimeContext.get_job_id(None), both)
"""


def test_two_trainings_on_one_machine_use_different_sockets() -> None:
    """veRL names sockets after the Ray job id, and the first job of every Ray cluster has the same id."""
    assert "name: 01000000word [1, 1]" in in_the_trainers(APART, DSRL_TRAINING="word")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.total_epochz=1", "trainer.total_epochz"),
        ("actor_rollout_ref.rollout.max_num_seqs=many", "actor_rollout_ref.rollout.max_num_seqs"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=64", "ppo_mini_batch_size"),
    ],
)
def test_a_wrong_override_is_named_before_anything_starts(place: Place, override: str, words: str) -> None:
    outcome = place.dsrl(*GRPO, f'train.overrides=["{override}"]')
    assert outcome.code == 2
    assert words in outcome.err
    assert not (place.store / "stages" / "generate").exists()


def test_grpo_interrupted_then_killed_is_resumed_exported_and_loaded(place: Place) -> None:
    before = abandoned()
    outcome = place.interrupted(*GRPO, when=lambda: reached(place, 1), sign=signal.SIGINT)
    assert outcome.code == 128 + signal.SIGINT
    assert "Traceback" not in outcome.err
    assert not place.processes()
    until(lambda: abandoned() <= before)
    outcome = place.interrupted(*GRPO, when=lambda: reached(place, 2), sign=signal.SIGKILL)
    assert outcome.code == -signal.SIGKILL
    until(lambda: not place.processes() and abandoned() <= before)
    found = place.run(*GRPO)
    entry = place.entry("train", found)
    job = json.loads((entry / "job.json").read_text())
    assert "global_step_" in job["resume"]
    steps = [row for row in course(entry) if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert {"correct", "format_ok", "zero_variance", "kl", "tokens_per_second", "completion_length"} <= steps[0].keys()
    assert all(abs(row["reward"] - 0.9 * row["correct"] - 0.1 * row["format_ok"]) < 1e-5 for row in steps)
    assert all(row["rollout_probs_diff_mean"] < 1e-6 for row in steps)
    assert found["train"]["engine"] == "verl"
    assert found["train"]["rollout_probs_diff_mean"] < 1e-6
    assert 0 < found["train"]["readiness"]["zero_variance"] < 1
    (workers,) = json.loads((entry / "workers.json").read_text()).values()
    assert {"TaskRunnerV1", "vLLMHttpServer"} <= set(workers)
    assert {"algorithm:", "trainer:"} <= {line.strip() for line in (entry / "verl.yaml").read_text().splitlines()}
    assert "library_name: transformers" in (entry / "model" / "README.md").read_text()
    own, drawn = greedy(entry / "model", json.loads((entry / "train.jsonl").read_text().splitlines()[0])["prompt"])
    assert own == drawn != []
    assert found["evaluate"]["trained"]["n"] == 24
    assert not place.processes()
    until(lambda: abandoned() <= before)


def test_two_steps_of_ppo_with_a_critic_on_adapters(place: Place) -> None:
    """The second step's probabilities show that vLLM uses the adapters of the first."""
    found = place.run(*VERL, *PPO, *ADAPTERS)
    steps = [row for row in course(place.entry("train", found)) if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2]
    assert all("value_loss" in row for row in steps)
    assert all(row["rollout_probs_diff_mean"] < 1e-6 for row in steps)
    assert found["train"]["algorithm"] == "ppo"
    assert not place.processes()
