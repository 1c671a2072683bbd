"""`dsrl task ls`: list the tasks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsrl.cli.tasks.loading import Words
from dsrl.core.errors import UserError
from dsrl.core.resources import home


def ls(given: Words) -> int:
    """Print one line per task: name, answer kind, and size, source and licence of the test set."""
    if given.names or given.options:
        raise UserError("task ls takes no names", got=" ".join([*given.names, *given.options]))
    for path in sorted(files(given.config_dir), key=lambda path: path.stem):
        print(" ".join(_columns(path)).rstrip())
    return 0


def files(config_dir: Path | None) -> list[Path]:
    """The task files of dsrl and of the user's config folder."""
    folders = [home() / "conf" / "task"] + ([config_dir / "task"] if config_dir else [])
    return [path for folder in folders for path in folder.glob("[!_]*.yaml")]


def _columns(path: Path) -> Iterator[str]:
    import yaml

    try:
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML", got=str(error).splitlines()[0]) from error
    definition = definition if isinstance(definition, dict) else {}
    test = definition.get("test") or {}
    yield f"{path.stem:<13}"
    yield f"{_kind(definition.get('answer') or {}):<7}"
    yield f"{test['size'] if test.get('size') else '-':>6}"
    yield f"{test.get('path') or 'no test set':<30}"
    yield str(test.get("licence") or "")


def _kind(answer: dict[str, Any]) -> str:
    return str(answer.get("kind") or str(answer.get("_target_", "-")).rpartition(".")[2].lower())
