from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.infra.slurm import JobRequest
from dsrl.infra.slurm.commands import JobState, check, minutes, num_gpus, partitions, refuse_nesting, states
from tests.infra.slurm.fake_commands import fake_commands

SINFO = "cpu*|4:00:00|8|(null)\ngpu|2-00:00:00|2|gpu:a100:4(S:0-1)\ngpu|2-00:00:00|1|gpu:a100:8\nlong|infinite|1|(null)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30:00", 30), ("4:00:00", 240), ("1-12:00:00", 2160), ("infinite", None), ("n/a", None)],
)
def test_time_limits(text: str, expected: int | None) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("(null)", 0), ("gpu:4", 4), ("gpu:a100:4(S:0-1)", 4), ("gpu:a:2,gpu:b:1,shard:8", 3)]
)
def test_gpus_of_a_node(text: str, expected: int) -> None:
    assert num_gpus(text) == expected


def test_lines_of_one_partition_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO)
    found = {one.name: (one.is_default, one.minutes, one.nodes, one.gpus) for one in partitions()}
    assert found == {"cpu": (True, 240, 8, 0), "gpu": (False, 2880, 3, 8), "long": (False, None, 1, 0)}


@pytest.mark.parametrize(
    "request_",
    [
        JobRequest(),
        JobRequest(partition="gpu", gpus=8, nodes=3),
        JobRequest(partition="long", minutes=99999),
        JobRequest(partition="cpu,gpu", gpus=8),
    ],
)
def test_request_that_fits_passes(request_: JobRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="")
    check(request_)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (JobRequest(partition="gpuu"), ("slurm.partition", "gpuu", "cpu, gpu, long")),
        (JobRequest(partition="gpu,gpuu"), ("slurm.partition", "gpuu", "cpu, gpu, long")),
        (JobRequest(minutes=241), ("slurm.minutes", "241", "up to 240")),
        (JobRequest(partition="gpu", gpus=9), ("slurm.gpus", "up to 8")),
        (JobRequest(partition="cpu,gpu", gpus=9), ("slurm.gpus", "up to 8")),
        (JobRequest(partition="gpu", nodes=4), ("slurm.nodes", "up to 3")),
    ],
)
def test_request_that_slurm_would_reject_or_never_start_is_refused(
    request_: JobRequest, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="")
    with pytest.raises(UserError) as caught:
        check(request_)
    assert all(word in str(caught.value) for word in words)


def test_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch"):
        check(JobRequest())


def test_error_of_slurm_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "slurm_load_partitions: Unable to contact slurm controller"
    fake_commands(tmp_path, monkeypatch, sinfo=f"exit {message}", sbatch="")
    with pytest.raises(UserError, match=message):
        check(JobRequest())


def test_states_come_from_the_queue_then_from_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = "7|PENDING|Priority\n8_0|RUNNING|None\n8_1|COMPLETED|None\n99|RUNNING|None"
    accounting = "8_1|FAILED|2:0\n6|CANCELLED by 0|0:15"
    programs = fake_commands(tmp_path, monkeypatch, squeue=queue, sacct=accounting)
    assert states(["6", "7", "8_0", "8_1", "5"]) == {
        "6": JobState("CANCELLED", exit_code="0:15"),
        "7": JobState("PENDING", "Priority"),
        "8_0": JobState("RUNNING"),
        "8_1": JobState("FAILED", exit_code="2:0"),
    }
    assert "--me" in (programs / "calls").read_text().split(), "not the jobs of all users"


def test_cluster_without_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_commands(tmp_path, monkeypatch, squeue="8|TIMEOUT|None", sacct="exit Slurm accounting storage is disabled")
    assert states(["8", "9"]) == {"8": JobState("TIMEOUT")}
    assert states(["8"])["8"].over


def test_no_allocation_inside_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    refuse_nesting("dsrl submit")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(UserError, match="SLURM_JOB_ID=12"):
        refuse_nesting("dsrl submit")
