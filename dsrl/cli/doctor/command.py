"""`dsrl doctor`: what is there, what is missing, and which teachers were ever tried; without spending anything.

`dsrl doctor [teacher=NAME] [train=verl] [OVERRIDE ...] [live=true]`. With a teacher, or train=verl, what it needs must
be there: exit code 1 where it isn't. With `live=true` one tiny request is paid for, which shows whether the key, the
model, `n`, structured output and the seed are taken as the config says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsrl.cli.doctor.finding import Finding
from dsrl.cli.doctor.machine import machine
from dsrl.cli.doctor.teachers import chosen, teachers
from dsrl.cli.doctor.trainer import trainer
from dsrl.core.errors import UserError
from dsrl.core.resources import home


def doctor(arguments: list[str]) -> int:
    """`dsrl doctor [teacher=NAME] [live=true]`. Exit code 1 if something that is needed is missing."""
    from dsrl.cli.overrides import refuse_secrets

    refuse_secrets(arguments)
    live, overrides, folders = _split(arguments)
    picked = any(override.startswith("teacher=") for override in overrides)
    if live and not picked:
        raise UserError("live=true: which teacher?", next_step="dsrl doctor teacher=NAME live=true")
    config = _composed(overrides, folders)
    failed = False
    trains = any(override == "train=verl" or override.startswith("train.python=") for override in overrides)
    for title, findings in _sections(config, folders, picked, live, trains):
        print(title)
        for finding in findings:
            print(finding, flush=True)
            failed |= finding.mark == "!!"
        print()
    print("something is missing (!!)" if failed else "nothing that was asked for is missing")
    return int(failed)


def _sections(
    config: dict[str, Any], folders: list[Path], picked: bool, live: bool, trains: bool
) -> Iterator[tuple[str, Iterator[Finding]]]:
    yield "This machine", machine(config["store"], config["tracking"].get("uri"))
    yield "Environment of train=verl (train.python)", trainer(config["train"], wanted=trains)
    yield "Teachers (conf/teacher)", teachers(folders)
    if picked:
        yield f"teacher={config['teacher'].get('model')}", chosen(config["teacher"], live)


def _split(arguments: list[str]) -> tuple[bool, list[str], list[Path]]:
    """Whether to send a request, the overrides, and the user's config folders."""
    rest, folders = [part for argument in arguments for part in _parts(argument)], []
    while "--config-dir" in rest[:-1]:
        place = rest.index("--config-dir")
        folders.append(Path(rest[place + 1]).expanduser().absolute())
        del rest[place : place + 2]
    live = [argument for argument in rest if argument.startswith("live=")]
    if live and live[-1] not in ("live=true", "live=false"):
        raise UserError("live: neither yes nor no", got=live[-1], allowed=("live=true", "live=false"))
    overrides = [argument for argument in rest if argument not in live]
    if strange := [argument for argument in overrides if "=" not in argument]:
        raise UserError("doctor: not an override", got=strange[0], allowed="teacher=NAME, live=true, or any KEY=VALUE")
    return live[-1:] == ["live=true"], overrides, folders


def _parts(argument: str) -> list[str]:
    """`--config-dir=FOLDER` may be written with or without the sign."""
    return argument.split("=", 1) if argument.startswith("--config-dir=") else [argument]


def _composed(overrides: list[str], folders: list[Path]) -> dict[str, Any]:
    """The parts of the config that are looked at, as plain values."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    from dsrl.main import plain

    path = ",".join(f"file://{folder}" for folder in folders)
    search = [f"hydra.searchpath=[{path}]"] if folders else []
    try:
        with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
            config = compose("config", [*search, *overrides])
        names = ("teacher", "tracking", "store", "prices")
        interpreter = OmegaConf.select(config, "train.python")
        found = {name: config[name] for name in names if not OmegaConf.is_config(config[name])}
        nodes = {
            name: OmegaConf.to_container(config[name], resolve=True, throw_on_missing=True)
            for name in names
            if name not in found
        }
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing", next_step=f"give {error.full_key}=...") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(plain(error), next_step="dsrl --help lists the teachers") from error
    values = {**found, **nodes, "train": {"python": interpreter}}
    return values if values["prices"] is None else _priced(values)


def _priced(values: dict[str, Any]) -> dict[str, Any]:
    from dsrl.llm.price import read_prices, with_prices

    return {**values, "teacher": with_prices(values["teacher"], read_prices(Path(values["prices"]).expanduser()))}
