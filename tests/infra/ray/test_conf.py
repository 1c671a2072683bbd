"""The files in conf/ for clusters and Slurm list every field of their class, with its default."""

import dataclasses

import pytest
import yaml

from dsrl.cli.slurm_launcher import LauncherSettings
from dsrl.core.resources import home
from dsrl.infra.ray import LocalRay, RayAddress, SlurmRay
from dsrl.infra.ray.base import Cluster
from dsrl.infra.slurm import JobRequest
from dsrl.pipeline.config import build

CLUSTERS = {"local": LocalRay, "ray": RayAddress, "slurm": SlurmRay}


@pytest.mark.parametrize("name", sorted(CLUSTERS))
def test_cluster_config_lists_every_field(name: str) -> None:
    values = yaml.safe_load((home() / "conf" / "cluster" / f"{name}.yaml").read_text(encoding="utf-8"))
    values |= {"address": "10.0.0.5:6379"} if name == "ray" else {}
    cluster = build(values, "cluster")
    assert (type(cluster), isinstance(cluster, Cluster)) == (CLUSTERS[name], True)
    assert set(values) - {"_target_"} == {field.name for field in dataclasses.fields(cluster)}


def test_slurm_config_lists_every_field_with_its_default() -> None:
    values = yaml.safe_load((home() / "conf" / "config.yaml").read_text(encoding="utf-8"))["slurm"]
    assert build(values, "slurm") == JobRequest()
    assert set(values) - {"_target_"} == {field.name for field in dataclasses.fields(JobRequest)}


def test_launcher_config_lists_every_field() -> None:
    values = yaml.safe_load((home() / "conf" / "hydra" / "launcher" / "slurm.yaml").read_text(encoding="utf-8"))
    assert {name for name in values if name[0] != "_"} == set(LauncherSettings.__dataclass_fields__)
