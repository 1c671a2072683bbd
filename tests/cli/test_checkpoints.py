"""Checkpoints below a folder: found, checked and measured one by one."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from dsrl.cli.evaluate_checkpoints import evaluate_checkpoints
from dsrl.cli.evaluate_checkpoints.folders import checkpoints
from dsrl.core.errors import BudgetReached, StageFailed, UserError
from dsrl.data.evaluation import Estimate, Evaluation
from dsrl.data.task import Task
from dsrl.pipeline.state import PipelineState
from tests.toys import Number


def model(folder: Path, *, cut: int = 0, config: str = '{"model_type": "tiny"}') -> Path:
    """A folder that looks like a model's; `cut`: bytes that are missing at the end of its weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    (folder / "model.safetensors").write_bytes(whole[: len(whole) - cut])
    return folder


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """What a training leaves: whole and broken checkpoints, at several depths, and its last model."""
    folder = model(tmp_path / "run")
    for step in (100, 20):
        model(folder / f"checkpoint-{step}")
    model(folder / "deep" / "global_step_30" / "actor" / "huggingface")
    model(folder / "checkpoint-40", cut=3)
    model(folder / "checkpoint-50", config="{")
    (folder / "checkpoint-60").mkdir()
    (folder / "global_step_70" / "actor").mkdir(parents=True)
    (folder / "global_step_70" / "actor" / "model_world_size_2_rank_0.pt").write_bytes(b"x")
    (model(folder / "checkpoint-80") / "model.safetensors.index.json").write_text(
        '{"weight_map": {"w": "b.safetensors"}}'
    )
    return folder


def test_models_are_found_by_their_steps_and_faults_are_seen_before_work(training: Path) -> None:
    found = {one.step: one for one in checkpoints(training, None)}
    assert list(found) == [20, 30, 40, 50, 60, 70, 80, 100, None]
    assert found[30].path == training / "deep" / "global_step_30" / "actor" / "huggingface"
    faults = {step: one.fault for step, one in found.items() if one.fault}
    assert faults == {
        40: "model.safetensors is truncated",
        50: "config.json can't be read",
        60: "no config.json in it",
        70: faults[70],
        80: "b.safetensors is missing",
    }
    assert "veRL's shards; merge them first" in faults[70]
    assert [one.step for one in checkpoints(training, [100, 20])] == [20, 100]


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        ("all", "nowhere", "model.path is not a folder"),
        ("all", "empty", "no checkpoints in"),
        ([7], "run", "no step 7"),
        ("some", "run", "checkpoints"),
        ([], "run", "checkpoints"),
        ("all", None, "model.path=FOLDER"),
    ],
)
def test_what_is_not_there_is_said(value: Any, path: str | None, words: str, training: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    given = config(tmp_path / path if path else None, value)
    with pytest.raises(UserError, match=words):
        evaluate_checkpoints(given, tmp_path, lambda *_: pytest.fail("nothing is to be measured"))


def config(folder: Path | None, value: Any = "all") -> DictConfig:
    return OmegaConf.create({"name": "tiny", "checkpoints": value, "model": {"path": str(folder) if folder else None}})


def measured(value: float) -> PipelineState:
    half = Estimate(value=value, low=0.0, high=1.0)
    shares = dict.fromkeys(("pass_at_1", "greedy", "format_ok", "format_free", "truncated"), half)
    setting = {"name": "m", "model": "m", "test": "t", "grader": "g", "samples_per_item": 1, "temperature": 0.7}
    found = Evaluation(
        **setting, top_p=1.0, max_tokens=8, num_items=4, num_errors=0, item_rates=(value,) * 4, item_greedy=(True,) * 4,
        **shares,
    )  # fmt: skip
    return PipelineState(task=Task(name="t", instruction="x", answer=Number()), evaluation_base=found)


def test_each_is_measured_once_and_a_broken_one_keeps_nobody_from_it(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str, str]] = []

    def run(own: DictConfig, run_dir: Path) -> PipelineState:
        assert own.checkpoints is None
        asked.append((own.name, Path(own.model.path).name, run_dir.name))
        if own.model.path.endswith("checkpoint-20"):
            raise StageFailed("the model can't be loaded")
        return measured(0.25)

    with pytest.raises(StageFailed, match="6 of 9 checkpoints could not be evaluated") as caught:
        evaluate_checkpoints(config(training), tmp_path, run)
    assert "checkpoint-60: no config.json in it" in str(caught.value)
    assert asked == [
        ("tiny.step_20", "checkpoint-20", "step_20"),
        ("tiny.step_30", "huggingface", "step_30"),
        ("tiny.step_100", "checkpoint-100", "step_100"),
        ("tiny.last", "run", "last"),
    ]
    said = capsys.readouterr().out
    assert "      20  not evaluated: the model can't be loaded" in said
    assert "      30  25.0 % (0.0 to 100.0)" in said
    assert "choosing it on the test set" in said
    kept = json.loads((tmp_path / "checkpoints.json").read_text())["checkpoints"]
    assert [row["step"] for row in kept] == [20, 30, 40, 50, 60, 70, 80, 100, None]
    assert kept[1]["pass_at_1"]["value"] == 0.25


def test_a_budget_ends_it(training: Path, tmp_path: Path) -> None:
    def run(own: DictConfig, run_dir: Path) -> PipelineState:
        raise BudgetReached("no more")

    with pytest.raises(BudgetReached):
        evaluate_checkpoints(config(training, [20]), tmp_path, run)
