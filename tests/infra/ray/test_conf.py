"""What stands in conf/ for clusters and requests is what the classes take, with their defaults."""

import dataclasses

import pytest
import yaml

from dsrl.cli.slurm_launcher import LauncherSettings
from dsrl.core.resources import home
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.ray.base import Cluster
from dsrl.infra.slurm import JobRequest
from dsrl.pipeline.config import build

KINDS = {"local": LocalRay, "ray": RayAddress, "slurm": SlurmRay}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_cluster_is_built_with_all_its_dials(name: str) -> None:
    values = yaml.safe_load((home() / "conf" / "cluster" / f"{name}.yaml").read_text(encoding="utf-8"))
    values |= {"address": "10.0.0.5:6379"} if name == "ray" else {}
    found = build(values, "cluster")
    assert (type(found), isinstance(found, Cluster)) == (KINDS[name], True)
    assert set(values) - {"_target_"} == {field.name for field in dataclasses.fields(found)}


def test_the_request_s_dials_stand_in_the_config_with_their_defaults() -> None:
    values = yaml.safe_load((home() / "conf" / "config.yaml").read_text(encoding="utf-8"))["slurm"]
    assert build(values, "slurm") == JobRequest()
    assert set(values) - {"_target_"} == {field.name for field in dataclasses.fields(JobRequest)}


def test_the_launcher_s_dials_stand_in_its_file() -> None:
    values = yaml.safe_load((home() / "conf" / "hydra" / "launcher" / "slurm.yaml").read_text(encoding="utf-8"))
    assert {name for name in values if name[0] != "_"} == set(LauncherSettings.__dataclass_fields__)
