"""Every experiment composed over tasks, and the switches shown to do what they name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsrl.cli.experiments import experiments, markdown, read
from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.main import run_command
from dsrl.pipeline.config import check_overrides, known_stages
from tests.command import CHECKOUT
from tests.composed import built, values
from tests.golden import keys as golden
from tests.pipeline.test_config import local

CONF = home() / "conf"
EXPERIMENTS = {one.name: one for one in experiments()}
OTHER = {"gsm8k": "mednli", "logiqa": "gsm8k", "medqa": "gsm8k", "mmk12": "gsm8k", "quickstart": "gsm8k"}
"""Task of a file's own command, which tests/test_documents.py composes -> the one it is composed over here."""


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not a key")


@pytest.fixture
def demos(tmp_path: Path) -> str:
    return hundred_demos(tmp_path)


def hundred_demos(folder: Path) -> str:
    """A hundred demos, for experiments that want so many."""
    path = folder / "demos.jsonl"
    path.write_text("".join(json.dumps({"input": f"{i} + 1?", "output": f"#### {i + 1}"}) + "\n" for i in range(100)))
    return str(path)


def overrides(name: str, task: str, demos: str) -> list[str]:
    """How somebody would type it for another task."""
    words = EXPERIMENTS[name].command.split()[1:]
    kept = [word.replace("demos.jsonl", demos) for word in words if not word.startswith("task=")]
    return [f"task={task}", *kept, *local(task)]


def own_task(name: str) -> str:
    words = [word.partition("=")[2] for word in EXPERIMENTS[name].command.split() if word.startswith("task=")]
    return words[0] if words else "quickstart"


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_every_experiment_is_built_over_another_task_than_its_own(name: str, demos: str) -> None:
    task = OTHER[own_task(name)]
    pipeline, state = built(*overrides(name, task, demos))
    assert state.task.name == task
    assert golden.faults(name, golden.keys(pipeline, state)) == []


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_every_head_names_its_own_file(name: str) -> None:
    one = EXPERIMENTS[name]
    assert f"experiment={name}" in one.command.split()
    assert one.place.startswith(("Table", "Figure", "SynthRL, table", "Not in the paper", "The authors' code"))
    assert one.meaning.endswith(".")
    assert bool(one.figures) <= ("Table" in one.place or "Figure" in one.place)


def composed(name: str, *more: str) -> dict[str, Any]:
    return values(f"experiment={name}", "task=gsm8k", "teacher=offline", *local("gsm8k"), *more)


SWITCHES = {
    "ablation/no_retrieval": {"retrieve.retriever._target_": "dsrl.stages.retrieve.NoRetriever"},
    "ablation/no_pattern": {"generate.pattern": False, "generate.demos_per_prompt": 3},
    "ablation/no_adaptation": {"rewrite.direction": "none"},
    "ablation/only_harder": {"rewrite.direction": "harder"},
    "ablation/only_easier": {"rewrite.direction": "easier"},
    "ablation/select_all": {"select._target_": "dsrl.stages.select.AllScored", "select.m": None},
    "ablation/select_probability": {"select._target_": "dsrl.stages.select.Probability", "select.m": 500},
    "ablation/demos_0": {"task.num_demos": 0},
    "ablation/m_1000": {"select.m": 1000, "generate.n": 1000, "retrieve.num_passages": 1000},
    "ablation/m_100": {"select.m": 100, "generate.n": 500},
    "baseline/rft": {"train._target_": "dsrl.stages.train.Rft", "train.learning_rate": 2e-5},
    "paper/sft_same": {
        "train.learning_rate": 2e-5, "train.weight_decay": 0.01, "train.batch": 64, "train.epochs": 3, "select.m": 500,
    },
    "paper/rl_whole": {"select.m": None, "seeds.size": None, "train.algorithm.kl": 0.01},
    "paper/main": {
        "task.num_demos": 0, "generate.n": 500, "generate.temperature": 0.7, "generate.verify.0.votes": 16,
        "generate.verify.0.temperature": 0.7, "generate.verify.0.count_own": False, "rewrite.direction": "both",
        "score.rollouts": 64, "score.temperature": 0.7, "select._target_": "dsrl.stages.select.PaperRanking",
        "select.m": 500,
        "select.fill": "both", "train.algorithm.learning_rate": 1e-6, "train.algorithm.temperature": 1.2,
        "train.algorithm.prompts_per_step": 4, "train.algorithm.responses_per_prompt": 16,
        "train.algorithm.epochs": 5, "train.algorithm.kl": 0.01, "train.algorithm.max_response_tokens": 2048,
        "train.format_share": 0.0, "model.name": "qwen2_5_7b", "teacher.model": "offline-rules-v1",
    },
    "authors_code": {
        "generate.n": 503, "generate.max_candidates": 503, "generate.demo_draw": "sparse", "score.temperature": 1.2,
        "generate.passage_order": "shuffled", "generate.verify.0.count_own": True, "generate.verify.0.stop": "none",
        "generate.verify.0.ties": "first", "score.top_p": 0.95, "score.max_tokens": 1500, "easier.direction": "easier",
        "rewrite.direction": "harder", "select.fill": "none", "train.algorithm.top_p": 0.8, "train.format_share": 0.1,
        "train.algorithm.kl": 0.001, "retrieve.num_passages": 10000, "retrieve.queries": "joined",
        "evaluate_base.temperature": 0.7, "evaluate_trained.temperature": 0.7,
    },
}  # fmt: skip
"""Experiment -> what must come out, also where a default should change some day."""


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_does_what_it_names(name: str) -> None:
    found = composed(name)
    for path, expected in SWITCHES[name].items():
        value: Any = found
        for step in path.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        assert value == expected, path


def test_experiments_add_up_and_the_later_one_wins() -> None:
    both = composed("[quickstart,ablation/no_retrieval,ablation/m_100]", "n=40")
    assert (both["n"], both["m"], both["votes"], both["model"]["name"]) == (40, 100, 8, "quickstart")
    assert both["retriever"]["_target_"].endswith("NoRetriever")
    assert composed("[ablation/m_100,quickstart]")["m"] == 300
    human = composed("[paper/rl_same,paper/llama3_2_3b_instruct]")
    assert "seeds" in human["pipeline"]
    assert human["model"]["name"] == "llama3_2_3b_instruct"
    assert composed("[quickstart,baseline/rft]", "train=none")["train"]["_target_"].endswith("NoTraining")


@pytest.mark.parametrize("path", sorted((CONF / "pipeline").glob("[!_]*.yaml")), ids=lambda path: path.stem)
def test_pipelines_have_what_they_share_in_the_same_order(path: Path) -> None:
    """A stage that comes into the main pipeline has to find its place in the others, too."""
    if path.stem == "synthrl":
        pytest.skip("scores its seeds before anything is rewritten")
    usual = list(yaml.safe_load((CONF / "pipeline" / "synthetic_data_rl.yaml").read_text())["pipeline"])
    order = list(yaml.safe_load(path.read_text())["pipeline"])
    assert [name for name in order if name in usual] == [name for name in usual if name in order]
    if path.stem == "authors_code":
        assert set(usual) <= set(order)


@pytest.mark.parametrize("path", sorted((CONF / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_format_has_one_share_in_rewards(path: Path) -> None:
    assert yaml.safe_load(path.read_text()).get("format_share", "${reward.format_share}") == "${reward.format_share}"


def test_too_few_demos_are_an_error_that_says_where_to_get_more() -> None:
    with pytest.raises(UserError, match=r"task.num_demos: gsm8k(.|\n)*3 demos(.|\n)*dsrl task demos"):
        built("experiment=ablation/demos_10", "task=gsm8k", "teacher=offline", *local("gsm8k"))


def test_a_task_without_labelled_data_has_no_human_baseline() -> None:
    with pytest.raises(UserError, match=r"seeds: there is no labelled data(.|\n)*task.gold.path"):
        built("experiment=baseline/human", "task=cqa", *local("cqa"))


def test_human_data_need_no_teacher() -> None:
    pipeline, _ = built("experiment=baseline/human", "task=gsm8k", *local("gsm8k"))
    assert list(pipeline)[:5] == ["seeds", "decontaminate", "select", "diversity", "train"]


@pytest.mark.parametrize("folder", ["", "paper", "ablation", "baseline", "synthrl"])
def test_the_documents_table_is_that_of_the_files(folder: str) -> None:
    text = (CHECKOUT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert markdown(folder) in text, (
        f"python -c 'from dsrl.cli.experiments import markdown; print(markdown({folder!r}))'"
    )


def test_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["experiment", "ls"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{out}" for name in EXPERIMENTS)
    assert run_command(["experiment", "ls", "figure"]) == 0
    assert "paper/grpo_3b" in (out := capsys.readouterr().out)
    assert "paper/main" not in out
    assert run_command(["experiment", "ls", "nothing"]) == run_command(["experiment", "run"]) == 2


def test_a_file_without_a_head_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# @package _global_\nm: 3\n")
    with pytest.raises(UserError, match=r"mine.yaml: no head"):
        read(tmp_path / "mine.yaml", tmp_path)


@pytest.mark.parametrize("override", ["rewrite.direction=none", "+generate.verify.0.votes=3", "retrieve.seed=2"])
def test_a_dial_of_a_stage_that_does_not_run_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"this pipeline has no such stage(.|\n)*self_instruct, select, train"):
        check_overrides({"pipeline": {"self_instruct": 1, "select": 1, "train": 1}}, [override])


def test_dials_that_are_of_use_pass() -> None:
    used = [
        "score.temperature=1",
        "train.seed=2",
        "m=3",
        "rewrite.direction=none",
        "teacher.concurrency=2",
        "select=all",
    ]
    check_overrides({"pipeline": {"rewrite": 1, "select": 1, "train": 1}}, used)
    assert {"seeds", "targen", "probe_easier", "rewrite"} <= known_stages()


@pytest.mark.parametrize("name", ["ablation/no_retrival", "[quickstart,paper/nothing]"])
def test_a_mistyped_experiment_is_pointed_to_the_list(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["run", f"experiment={name}", "task=quickstart"]) == 2
    assert "next:    dsrl experiment ls" in capsys.readouterr().err
