"""The user's own modules (`plugins=[my_module]`), imported here and in every child process of the run."""

import importlib
import os
from collections.abc import Iterable

from dsrl.core.errors import UserError

VARIABLE = "DSRL_PLUGINS"
"""Environment variable by which child processes learn of the plugins: module names, separated by commas."""


def load_plugins(plugins: Iterable[str]) -> None:
    """Import the user's modules and pass them on to child processes. Raises `UserError` naming one that fails."""
    plugins = list(plugins)
    for plugin in plugins:
        try:
            importlib.import_module(plugin)
        except ImportError as error:
            raise UserError(
                f"plugins: module {plugin} can't be imported", got=str(error), next_step="is its folder in PYTHONPATH?"
            ) from error
    os.environ[VARIABLE] = ",".join(plugins)


def import_plugins() -> None:
    """In a child process: import what the parent's config named."""
    load_plugins(filter(None, os.environ.get(VARIABLE, "").split(",")))
