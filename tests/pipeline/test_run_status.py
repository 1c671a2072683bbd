import os
from pathlib import Path

import pytest

from dsrl.core.errors import BudgetReached, StageFailed
from dsrl.pipeline.run_status import amend, read, record_status, slurm_job


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def test_a_run_that_goes_on_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with record_status(tmp_path):
        said = read(tmp_path)
        assert (said["status"], said["pid"], said["slurm_job"], said["restarts"]) == ("running", os.getpid(), "12", 2)
    said = read(tmp_path)
    assert (said["status"], said["exit_code"], said["attempt"]) == ("finished", 0, 1)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StageFailed("the training failed"), "failed", 3),
        (BudgetReached("no more money"), "budget", 4),
        (RuntimeError("a fault"), "failed", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_a_run_that_ends_badly_says_how(error: BaseException, status: str, code: int, tmp_path: Path) -> None:
    with pytest.raises(type(error)), record_status(tmp_path):
        raise error
    said = read(tmp_path)
    assert (said["status"], said["exit_code"]) == (status, code)
    if status != "interrupted":
        assert str(error) in said["reason"]
        assert "Traceback" in said["traceback"]


def test_another_attempt_is_counted(tmp_path: Path) -> None:
    for _ in range(2):
        with record_status(tmp_path):
            pass
    assert read(tmp_path)["attempt"] == 2


def test_a_folder_that_can_t_be_written_costs_no_run(tmp_path: Path) -> None:
    with record_status(tmp_path / "missing"):
        pass
    assert read(tmp_path / "missing") == {}


def test_a_damaged_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{")
    assert read(tmp_path) == {}
    amend(tmp_path, status="killed")
    assert read(tmp_path) == {"status": "killed"}


def test_a_job_of_an_array_is_known_by_both_numbers() -> None:
    array = {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
    assert (slurm_job({}), slurm_job({"SLURM_JOB_ID": "15"}), slurm_job(array)) == (None, "15", "12_3")
