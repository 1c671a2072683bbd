from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.infra.slurm import JobRequest
from dsrl.infra.slurm.commands import State, check, minutes, num_gpus, partitions, refuse_nesting, states
from tests.infra.ray.pretend import commands

SINFO = "cpu*|4:00:00|8|(null)\ngpu|2-00:00:00|2|gpu:a100:4(S:0-1)\ngpu|2-00:00:00|1|gpu:a100:8\nlong|infinite|1|(null)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30:00", 30), ("4:00:00", 240), ("1-12:00:00", 2160), ("infinite", None), ("n/a", None)],
)
def test_time_limits_are_read(text: str, expected: int | None) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("(null)", 0), ("gpu:4", 4), ("gpu:a100:4(S:0-1)", 4), ("gpu:a:2,gpu:b:1,shard:8", 3)]
)
def test_gpus_of_a_node_are_counted(text: str, expected: int) -> None:
    assert num_gpus(text) == expected


def test_partitions_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, sinfo=SINFO)
    found = {one.name: (one.is_default, one.minutes, one.nodes, one.gpus) for one in partitions()}
    assert found == {"cpu": (True, 240, 8, 0), "gpu": (False, 2880, 3, 8), "long": (False, None, 1, 0)}


@pytest.mark.parametrize(
    "request_",
    [JobRequest(), JobRequest(partition="gpu", gpus=8, nodes=3), JobRequest(partition="long", minutes=99999)],
)
def test_what_slurm_can_give_is_let_through(
    request_: JobRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="")
    check(request_)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (JobRequest(partition="gpuu"), ("slurm.partition", "gpuu", "cpu, gpu, long")),
        (JobRequest(minutes=241), ("slurm.minutes", "241", "up to 240")),
        (JobRequest(partition="gpu", gpus=9), ("slurm.gpus", "up to 8")),
        (JobRequest(partition="gpu", nodes=4), ("slurm.nodes", "up to 3")),
    ],
)
def test_what_it_would_refuse_or_keep_waiting_is_told(
    request_: JobRequest, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, sinfo=SINFO, sbatch="")
    with pytest.raises(UserError) as caught:
        check(request_)
    assert all(word in str(caught.value) for word in words)


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch on the PATH"):
        check(JobRequest())


def test_a_controller_that_is_down_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, sinfo="exit slurm_load_partitions: Unable to contact slurm controller", sbatch="")
    with pytest.raises(UserError, match="Unable to contact slurm controller"):
        check(JobRequest())


def test_a_job_in_the_queue_stands_as_the_queue_says_and_another_as_the_accounts_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = "7|PENDING|Priority\n8_0|RUNNING|None\n8_1|COMPLETED|None\n99|RUNNING|None"
    accounts = "8_1|FAILED|2:0\n6|CANCELLED by 0|0:15"
    commands(tmp_path, monkeypatch, squeue=queue, sacct=accounts)
    assert states(["6", "7", "8_0", "8_1", "5"]) == {
        "6": State("CANCELLED", exit_code="0:15"),
        "7": State("PENDING", "Priority"),
        "8_0": State("RUNNING"),
        "8_1": State("FAILED", exit_code="2:0"),
    }


def test_a_cluster_without_accounting_knows_its_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, squeue="8|TIMEOUT|None", sacct="exit Slurm accounting storage is disabled")
    assert states(["8", "9"]) == {"8": State("TIMEOUT")}
    assert states(["8"])["8"].over


def test_no_allocation_is_asked_for_inside_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    refuse_nesting("dsrl submit")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(UserError, match="SLURM_JOB_ID=12"):
        refuse_nesting("dsrl submit")
