"""Load a task from the config by itself, without teacher and model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.data.task import Task


@dataclass(frozen=True)
class Words:
    """The arguments after `dsrl task ACTION`."""

    names: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    """`key=value` arguments: options and Hydra overrides."""
    config_dir: Path | None = None

    @property
    def name(self) -> str:
        """The only name. Raises `UserError` for none or several."""
        if len(self.names) != 1:
            raise UserError("task needs one name", got=" ".join(self.names) or None, next_step="dsrl task ls")
        return self.names[0]


def words(arguments: list[str]) -> Words:
    """Parse names, options and `--config-dir`, in any order."""
    rest, folder = list(arguments), None
    if "--config-dir" in rest:
        at = rest.index("--config-dir")
        if at + 1 == len(rest):
            raise UserError("--config-dir needs a folder", next_step="--config-dir FOLDER")
        folder = Path(rest[at + 1]).expanduser()
        del rest[at : at + 2]
    if flags := [word for word in rest if word.startswith("-")]:
        raise UserError(f"{flags[0]}: unknown flag", allowed="--config-dir FOLDER")
    options = dict(word.split("=", 1) for word in rest if "=" in word)
    return Words([word for word in rest if "=" not in word], options, folder)


def load(given: Words) -> Task:
    """The task as a run would build it. Raises `UserError` as a run would."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from dsrl.core.plugins import load_plugins
    from dsrl.pipeline.config import build

    config = _composed(given)
    plugins = tuple(config.plugins)
    load_plugins(plugins)
    try:
        values = OmegaConf.to_container(config.task, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "task"
        raise UserError(f"{key} is missing", next_step=f"give {key}=...") from error
    task = build(values, "task", plugins)
    assert isinstance(task, Task)
    return task


def _composed(given: Words) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from dsrl.cli.compose import config_error, search_path

    if given.config_dir is not None and not given.config_dir.is_dir():
        raise UserError("--config-dir: no such folder", got=given.config_dir, next_step="check the path")
    search = [search_path([given.config_dir.absolute()])] if given.config_dir else []
    overrides = [f"{key}={value}" for key, value in given.options.items()]
    try:
        with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
            return compose("config", [*search, f"task={given.name}", *overrides])
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise config_error(error) from error
