"""Composing the config outside of a run, and checks on what was typed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.errors import UserError
from dsrl.core.resources import home

if TYPE_CHECKING:
    from omegaconf import DictConfig

SECRET = re.compile(r"(^|[._/+~])(api_?key|access_?key|secret|token|password|hf_token)$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"(^|[\s'\"=:,{\[])(sk-|hf_|ghp_|AKIA|AIza)[\w-]{8,}")
INNER_KEY = re.compile(r"""[{,]\s*['"]?([\w.]+)['"]?\s*:""")

OMITTED = ("use +", "Full traceback", "\t_")
"""Lines of Hydra's messages that don't help here: advice to force a mistyped key in, a hint for developers, a file that
is not a choice."""


def compose(arguments: Sequence[str], verb: str) -> "DictConfig":
    """The config that `dsrl run ARGUMENTS` would have, unresolved. Raises `UserError` as that run would."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    folders, overrides = split_config_dirs(arguments, verb)
    search = [search_path(folders)] if folders else []
    ours = [override for override in overrides if not override.lstrip("+~").startswith("hydra")]
    try:
        with hydra.initialize_config_dir(str(home() / "conf"), version_base="1.3"):
            return hydra.compose("config", [*search, *ours])
    except (HydraException, OmegaConfBaseException) as error:
        raise config_error(error) from error


def quote(value: str | Path) -> str:
    """A string or path as a value in Hydra's override language."""
    text = str(value)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return text if all(letter.isalnum() or letter in "/._-+" for letter in text) else f"'{escaped}'"


def search_path(folders: Iterable[str | Path]) -> str:
    """The override that adds the user's config folders."""
    return f"hydra.searchpath=[{','.join(quote(f'file://{folder}') for folder in folders)}]"


def override_value(overrides: Iterable[str], key: str, config: Mapping[str, Any]) -> Any:
    """The value that the last override of `key` has, with quotes removed and interpolations resolved in `config`; None
    if there is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.utils import setup_globals
    from omegaconf import OmegaConf

    given = [word for word in overrides if word.partition("=")[0].lstrip("+") == key]
    if not given:
        return None
    setup_globals()  # registers `now`
    value = OverridesParser.create().parse_override(given[-1]).value()
    return OmegaConf.select(OmegaConf.create({**config, "_value": value}), "_value")


def compose_values(arguments: Sequence[str], verb: str) -> dict[str, Any]:
    """The checked and resolved config of `dsrl run ARGUMENTS`."""
    from dsrl.pipeline.config import resolve

    return resolve(compose(arguments, verb))


def split_config_dirs(arguments: Sequence[str], verb: str) -> tuple[list[str], list[str]]:
    """The user's config folders as absolute paths, and the overrides. Raises `UserError` for other flags."""
    folders, overrides = [], []
    words = iter(arguments)
    for word in words:
        flag, sign, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            folders.append(str(Path(value if sign else next(words, "")).expanduser().absolute()))
        elif word.startswith("-") or ("=" not in word and not word.startswith("~")):
            raise UserError(
                f"{verb}: not an override",
                got=word,
                allowed="--config-dir FOLDER and overrides, KEY=VALUE",
                next_step="a sweep goes through its launcher: dsrl -m hydra/launcher=slurm ..."
                if word in ("-m", "--multirun")
                else "dsrl --help",
            )
        else:
            overrides.append(word)
    return folders, overrides


def config_error(error: Exception) -> UserError:
    """Hydra's complaint about a config as ours, with the key that was probably meant."""
    from dsrl.pipeline.config import known_keys

    override = getattr(error, "override", None)  # of one that can't be parsed
    lines = [*([f"{override}: not an override"] if override else []), *filter(str.strip, str(error).splitlines())]
    message = "\n  ".join(line for line in lines if not any(word in line for word in OMITTED))
    name = str(error).partition("Could not override '")[2].partition("'")[0]
    close = get_close_matches(name, known_keys(), 1) if name and "." not in name else []
    if "experiment/" in str(error):
        advice = "dsrl experiment ls lists the experiments there are"
    elif name in known_keys():
        advice = f"`{name}` belongs to another pipeline: give pipeline=..., or its verb, such as dsrl evaluate"
    elif close:
        advice = f"did you mean `{close[0]}`?"
    else:
        advice = "dsrl --help lists groups and settings; --cfg job prints all keys"
    return UserError(message, next_step=advice)


def refuse_secrets(overrides: Iterable[str]) -> None:
    """Refuse API keys on the command line: what is typed there ends up in files and process lists."""
    for override in overrides:
        key, sign, value = override.partition("=")
        keys = [key, *INNER_KEY.findall(value)]
        if sign and (any(map(SECRET.search, keys)) or SECRET_VALUE.search(value)):
            raise UserError(
                f"{key.lstrip('+~')}: a secret doesn't belong on the command line (its value is not repeated here)",
                allowed="the name of an environment variable",
                next_step="export OPENAI_API_KEY=... and give teacher.api_key_env=OPENAI_API_KEY",
            )
