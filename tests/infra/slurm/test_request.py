from typing import Any

import pytest
from pydantic import ValidationError

from dsrl.core.errors import UserError
from dsrl.infra.slurm import JobRequest


def test_unset_fields_are_not_requested() -> None:
    arguments = JobRequest(restarts=0).arguments()
    assert arguments == ["--time=240", "--nodes=1", "--ntasks-per-node=1", "--requeue", "--export=ALL"]


def test_fields_and_options_become_options_of_sbatch() -> None:
    request = JobRequest(
        partition="gpu,long",
        minutes=60,
        nodes=2,
        gpus=4,
        cpus=16,
        memory_gb=64,
        requeue=False,
        options={"mail-type": "END", "exclusive": True},
    )
    assert set(request.arguments()) == {
        *("--partition=gpu,long", "--time=60", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=4"),
        *("--cpus-per-task=16", "--mem=64G", "--no-requeue", "--mail-type=END", "--exclusive", "--export=ALL"),
    }
    assert "--export=NONE" in JobRequest(options={"export": "NONE"}).arguments()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"time": 5}, "slurm.minutes=..."),
        ({"gpus-per-node": 5}, "slurm.gpus=..."),
        ({"--mail-type": "END"}, "--mail-type"),
        ({"output": "x"}, "slurm.options.output"),
    ],
)
def test_option_that_has_a_field_or_is_misspelt_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises((UserError, ValidationError), match=named):
        JobRequest(options=options)


def test_warning_must_come_in_the_second_half_of_the_job() -> None:
    assert JobRequest(minutes=1, warn_seconds=30)
    with pytest.raises(ValueError, match=r"slurm\.warn_seconds=30"):
        JobRequest(minutes=1, warn_seconds=31)


@pytest.mark.parametrize("fields", [{"minutes": 0}, {"nodes": 0}, {"gpus": -1}, {"restarts": -1}, {"minutes": "4h"}])
def test_impossible_numbers_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobRequest(**fields)
