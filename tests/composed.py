"""Compose configs with Hydra as the command line does, in this process."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from dsrl.core.resources import home
from dsrl.pipeline import config
from dsrl.pipeline.experiment import build_pipeline
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState


def values(*overrides: str, config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved config. Raises the errors that the command line would report."""
    search = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        return config.resolve(compose("config", [*search, *overrides]))


def elsewhere(found: dict[str, Any]) -> bool:
    """Whether trainer or rollout engine need another environment, which the fast tests don't have."""
    targets = {str(node.get("_target_")) for node in (found["train"], found["rollout"]) if node}
    return bool({"dsrl.stages.train.Verl", "dsrl.models.rollout.VllmRollout"} & targets)


def built(*overrides: str, config_dir: Path | None = None) -> tuple[dict[str, Stage], PipelineState]:
    """Stages and state, checked as before a run. Checks of the environment are skipped if it is `elsewhere`."""
    found = values(*overrides, config_dir=config_dir)
    return build_pipeline(found, config.settings_of(found), dry=elsewhere(found))
