"""The arguments of a verb: words, options written `key=value`, Hydra overrides and `--config-dir`, in any order."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dsrl.core.errors import UserError
from dsrl.pipeline.store import Store

TRUE_FALSE = ("true", "false")


@dataclass(frozen=True)
class Arguments:
    """What stands after a verb."""

    verb: str
    words: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    """Options of the verb itself."""
    overrides: tuple[str, ...] = ()
    """Hydra overrides."""
    config_dirs: tuple[str, ...] = ()
    """The user's config folders, as absolute paths."""

    def integer(self, name: str, default: int, minimum: int = 0, maximum: int | None = None) -> int:
        """An option that is a whole number. Raises `UserError` for anything else."""
        given = self.options.get(name, str(default))
        if not given.isdecimal() or int(given) < minimum or (maximum is not None and int(given) > maximum):
            allowed = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
            raise UserError(f"{name}: not a whole number in this range", got=given, allowed=allowed)
        return int(given)

    def number(self, name: str, default: float) -> float:
        """An option that is a number. Raises `UserError` for anything else."""
        try:
            return float(self.options.get(name, default))
        except ValueError as error:
            raise UserError(f"{name}: not a number", got=self.options[name]) from error

    def choice(self, name: str, default: str, allowed: Collection[str]) -> str:
        """An option that is one of these words. Raises `UserError` for any other."""
        given = self.options.get(name, default)
        if given not in allowed:
            raise UserError(f"{name}: no such choice", got=given, allowed=allowed)
        return given

    def flag(self, name: str, *, default: bool = False) -> bool:
        """An option that is true or false. Raises `UserError` for anything else."""
        return self.choice(name, str(default).lower(), TRUE_FALSE) == "true"

    def store(self) -> Store:
        """The store of `store=FOLDER`. Raises `UserError` if there is none."""
        root = store_root(self.options.get("store"))
        if not (root / "stages").is_dir():
            raise UserError(f"no store at {root}", next_step="give store=FOLDER, or run something first")
        return Store(root)

    def hydra_arguments(self) -> list[str]:
        """Overrides and config folders, for `dsrl.cli.compose.compose`."""
        return [*(f"--config-dir={folder}" for folder in self.config_dirs), *self.overrides]


def parse(
    verb: str,
    arguments: Sequence[str],
    *,
    options: Collection[str] = (),
    max_words: int = 0,
    overrides: bool = False,
) -> Arguments:
    """Sort the arguments of a verb. Raises `UserError` for unknown options and flags, and for too many words.

    `options` are the names of the verb's own options. With `overrides`, any other `key=value`, and `--config-dir`,
    is passed on to Hydra.
    """
    words: list[str] = []
    own: dict[str, str] = {}
    passed: list[str] = []
    folders: list[str] = []
    remaining = iter(arguments)
    for word in remaining:
        key, sign, value = word.partition("=")
        if key in ("--config-dir", "-cd") and overrides:
            folders.append(_config_dir(value if sign else next(remaining, "")))
        elif word.startswith("-"):
            raise UserError(f"{word}: unknown flag of {verb}", allowed=_allowed(options, overrides))
        elif key in options and sign:
            own[key] = value
        elif overrides and (sign or word.startswith("~")):
            passed.append(word)
        elif sign:
            raise UserError(f"{key}: unknown option of {verb}", allowed=_allowed(options, overrides))
        else:
            words.append(word)
    if len(words) > max_words:
        raise UserError(f"{verb}: too many words", got=" ".join(words), next_step="dsrl --help")
    return Arguments(verb, tuple(words), own, tuple(passed), tuple(folders))


def store_root(given: str | None = None) -> Path:
    """The folder of the store: as given, else `$DSRL_STORE`, else `store` in the working folder."""
    return Path(given or os.environ.get("DSRL_STORE") or "store").expanduser().absolute()


def _config_dir(given: str) -> str:
    folder = Path(given).expanduser().absolute()
    if not given or not folder.is_dir():
        raise UserError("--config-dir: no such folder", got=given or None, next_step="--config-dir FOLDER")
    return str(folder)


def _allowed(options: Collection[str], overrides: bool) -> list[str]:
    return [f"{name}=..." for name in options] + (["--config-dir FOLDER", "KEY=VALUE"] if overrides else [])
