"""The config of a run that will happen elsewhere, composed and checked here."""

from collections.abc import Sequence
from typing import Any

from dsrl.core.errors import UserError
from dsrl.core.resources import home
from dsrl.pipeline import config


def composed(arguments: Sequence[str]) -> dict[str, Any]:
    """The config of `dsrl run ARGUMENTS` as plain values. Raises `UserError` as that run would."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from dsrl.main import advice, plain

    folders, overrides = folders_apart(arguments)
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    ours = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
    try:
        with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
            values = config.resolved(compose("config", [*search, *ours]))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(plain(error), next_step=advice(str(error))) from error
    return values


def check(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Build all of it and open nothing. Keys, test sets and packages are looked for where the work will be."""
    from dsrl.main import assemble

    config.check_asked(values, overrides)
    config.build(values["tracking"], "tracking")
    assemble(values, config.dials(values), dry=True)


def folders_apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config folders of the user's own, as absolute paths, and the overrides. Raises `UserError` for other flags."""
    from pathlib import Path

    folders, overrides = [], []
    words = iter(arguments)
    for word in words:
        flag, sign, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            folders.append(str(Path(value if sign else next(words, "")).expanduser().absolute()))
        elif word in ("-m", "--multirun"):
            raise UserError(
                "submit sends one run",
                got=word,
                next_step="a sweep goes through its launcher: dsrl -m hydra/launcher=slurm ...",
            )
        elif word.startswith("-"):
            raise UserError("submit: unknown flag", got=word, allowed="--config-dir FOLDER and overrides, KEY=VALUE")
        else:
            overrides.append(word)
    return folders, overrides
