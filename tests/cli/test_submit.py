import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.cli.compose import quote
from dsrl.cli.submit import job_script
from dsrl.core.resources import home
from dsrl.main import run_command
from tests.command import Outcome
from tests.infra.slurm.fake_commands import fake_commands

Call = Callable[..., Outcome]
SINFO = "main*|4:00:00|2|gpu:4"
RUN = ("task=quickstart", "teacher=offline", "model=quickstart", "tracking.enabled=false")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`dsrl submit` in an empty folder."""

    def called(*arguments: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        return Outcome(run_command(["submit", *arguments]), *capfd.readouterr())

    return called


def test_a_run_becomes_a_job(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="41")
    asked = ("slurm.gpus=2", "slurm.warn_seconds=60", "slurm.setup=[module load cuda]")
    outcome = call(*RUN, "m=20", *asked, "--config-dir", ".")
    assert outcome.code == 0, outcome.err
    assert "dsrl status 41" in outcome.out
    (run_dir,) = tmp_path.glob("runs/*/*-quickstart")
    words = (place / "calls").read_text().splitlines()
    sent = words[words.index("sbatch") + 1 :]
    for word in ("--gpus-per-node=2", "--signal=B:USR1@60", "--time=240", f"--output={run_dir}/slurm-%j.log"):
        assert word in sent
    assert sent[sent.index(str(run_dir / "job.sbatch")) + 1 :] == [
        f"--config-dir={tmp_path}", *RUN, "m=20", *asked, f"hydra.run.dir={run_dir}"
    ]  # fmt: skip
    assert "\nmodule load cuda\n" in (run_dir / "job.sbatch").read_text()
    assert json.loads((run_dir / "submission.json").read_text())["job"] == "41"


def test_mlflow_in_a_file_is_warned_of(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="41")
    assert "tracking.uri=http://" in call(*RUN[:3]).err
    assert "WARNING" not in call(*RUN[:3], "tracking.uri=http://server:5000", "hydra.run.dir=other").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*RUN, "slurm.partition=nope"), ["slurm.partition", "nope", "main"]),
        ((*RUN, "slurm.minuts=5"), ["minuts"]),
        ((*RUN, "slurm.minutes=abc"), ["slurm.minutes", "abc"]),
        ((*RUN, "m=-1"), ["m: ", "-1"]),
        ((*RUN, "rolouts=3"), ["rolouts", "did you mean `rollouts`"]),
        (("teacher=offline",), ["task is missing"]),
        ((*RUN, "-m", "m=1,2"), ["dsrl -m hydra/launcher=slurm"]),
        ((*RUN, "--wait"), ["--wait", "--config-dir"]),
        ((*RUN, "teacher.api_key=sk-verysecretvalue"), ["a secret doesn't belong"]),
        ((*RUN, "train=sft", "rl=grpo"), ["train=sft runs no RL algorithm"]),
        ((*RUN, "cluster=slurm"), ["cluster=slurm"]),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    arguments: tuple[str, ...], words: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="41")
    outcome = call(*arguments)
    assert outcome.code == 2, outcome.out
    assert all(word in outcome.err for word in words), outcome.err
    assert not (place / "calls").is_file() or "sbatch" not in (place / "calls").read_text().splitlines()
    assert not (tmp_path / "runs").exists()


def test_what_sbatch_refuses_is_told_in_its_words(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="exit sbatch: error: Invalid account")
    outcome = call(*RUN, "slurm.account=x")
    assert (outcome.code, "Invalid account" in outcome.err) == (2, True)


def test_one_folder_is_one_job_s(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="41")
    assert "dsrl status mine" in call(*RUN, "hydra.run.dir=mine").out
    outcome = call(*RUN, "hydra.run.dir=mine")
    assert (outcome.code, "job 41" in outcome.err) == (2, True)


def test_without_slurm_or_inside_of_it_none_is_sent(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch on the PATH" in call(*RUN).err
    monkeypatch.setattr("dsrl.infra.slurm.commands.allocation", lambda: "7")
    assert "SLURM_JOB_ID=7" in call(*RUN).err


def test_a_folder_s_name_survives_hydra() -> None:
    assert quote(Path("/a/b-c_d.e")) == "/a/b-c_d.e"
    assert quote(Path("/a b/it's")) == "'/a b/it\\'s'"


def test_the_script_is_bash_with_and_without_lines_of_the_user_s(tmp_path: Path) -> None:
    import subprocess

    template = (home() / "slurm" / "run.sbatch").read_text(encoding="utf-8")
    for lines in ([], ["module load cuda", "source activate x"]):
        text = job_script(template, lines)
        assert "{setup}" not in text
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("name", ["a=b", "a,b", "it's", "x (1) [2] {3}"])
def test_config_folder_with_any_name(name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="41")
    (tmp_path / name / "task").mkdir(parents=True)
    (tmp_path / name / "task" / "mine.yaml").write_text("defaults: [quickstart]\n")
    outcome = call("task=mine", *RUN[1:], "--config-dir", name)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("value", "folder"),
    [("'my runs/a'", "my runs/a"), ("plain", "plain"), ("x/${name}", "x/quickstart"), ("x/${now:%Y}/y", "x/20*/y")],
)
def test_run_folder_is_read_as_hydra_reads_it(
    value: str, folder: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="41")
    outcome = call(*RUN, f"hydra.run.dir={value}")
    assert outcome.code == 0, outcome.err
    assert [path.name for path in tmp_path.glob(f"{folder}/submission.json")] == ["submission.json"]
