"""Configs composed by Hydra as the command line composes them, without a command line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from dsrl import config
from dsrl.home import home
from dsrl.main import assemble
from dsrl.stage import Stage
from dsrl.study import Study


def values(*overrides: str, config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved config. Raises what the command line would report."""
    search = [f"hydra.searchpath=[file://{config_dir}]"] if config_dir else []
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        return config.resolved(compose("config", [*search, *overrides]))


def elsewhere(overrides: Iterable[str]) -> bool:
    """Whether what they ask for is installed in an environment of its own, which the fast tests do without."""
    return bool({"train=verl", "rollout=vllm"} & {*overrides})


def built(*overrides: str, config_dir: Path | None = None, dry: bool = False) -> tuple[dict[str, Stage], Study]:
    """Stages and study, checked as before a run; `dry`: as before a forecast, without what is needed for work."""
    found = values(*overrides, config_dir=config_dir)
    return assemble(found, config.dials(found), dry=dry)
