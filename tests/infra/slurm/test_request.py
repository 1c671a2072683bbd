from typing import Any

import pytest
from pydantic import ValidationError

from dsrl.core.errors import UserError
from dsrl.infra.slurm import JobRequest


def test_what_is_left_to_the_cluster_is_not_asked_for() -> None:
    assert JobRequest(restarts=0).arguments() == ["--time=240", "--nodes=1", "--ntasks-per-node=1", "--requeue"]


def test_dials_and_further_options_become_options_of_sbatch() -> None:
    request = JobRequest(
        partition="gpu", minutes=60, nodes=2, gpus=4, cpus=16, memory_gb=64, requeue=False,
        options={"mail-type": "END", "exclusive": True},
    )  # fmt: skip
    assert request.arguments() == [
        "--partition=gpu", "--time=60", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--cpus-per-task=16",
        "--mem=64G", "--no-requeue", "--mail-type=END", "--exclusive",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"time": 5}, "slurm.minutes=..."),
        ({"gpus-per-node": 5}, "slurm.gpus=..."),
        ({"--mail-type": "END"}, "not a long option"),
        ({"output": "x"}, "run folder"),
    ],
)
def test_an_option_in_the_wrong_place_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((UserError, ValidationError), match=words):
        JobRequest(options=options)


def test_a_warning_needs_time_before_it() -> None:
    assert JobRequest(minutes=1, warn_seconds=30)
    with pytest.raises(ValueError, match=r"slurm\.warn_seconds=30 or less"):
        JobRequest(minutes=1, warn_seconds=31)


@pytest.mark.parametrize("fields", [{"minutes": 0}, {"nodes": 0}, {"gpus": -1}, {"restarts": -1}, {"minutes": "4h"}])
def test_impossible_numbers_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobRequest(**fields)
