"""`dsrl doctor [teacher=NAME] [train=verl] [OVERRIDE ...] [live=true]`: check the installation, for free.

With a teacher or train=verl, exit code 1 means that something it needs is missing. With `live=true`, one tiny paid
request shows whether the key, the model, `n`, structured output and the seed are accepted as the config says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsrl.cli.arguments import parse
from dsrl.cli.compose import compose, config_error, refuse_secrets
from dsrl.cli.doctor.finding import Finding
from dsrl.cli.doctor.machine import check_machine, check_trainer
from dsrl.cli.doctor.teachers import check_teacher, list_teachers
from dsrl.core.errors import UserError

LOOKED_AT = ("teacher", "tracking", "store", "prices")
"""Parts of the config that doctor looks at. Nothing else of it has to be complete."""


def doctor(arguments: list[str]) -> int:
    """Print the findings. Exit code 1 if something that is needed is missing."""
    refuse_secrets(arguments)
    given = parse("doctor", arguments, options=("live",), overrides=True)
    live = given.flag("live")
    with_teacher = any(override.startswith("teacher=") for override in given.overrides)
    if live and not with_teacher:
        raise UserError("live=true needs a teacher", next_step="dsrl doctor teacher=NAME live=true")
    with_verl = any(word == "train=verl" or word.startswith("train.python=") for word in given.overrides)
    config = _config(given.hydra_arguments())
    sections: list[tuple[str, Iterator[Finding]]] = [
        ("This machine", check_machine(config["store"], config["tracking"].get("uri"))),
        ("Environment of train=verl (train.python)", check_trainer(config["train.python"], needed=with_verl)),
        ("Teachers (conf/teacher)", list_teachers([Path(folder) for folder in given.config_dirs])),
    ]
    if with_teacher:
        sections.append((f"teacher={config['teacher'].get('model')}", check_teacher(config["teacher"], live)))
    failed = False
    for title, findings in sections:
        print(title)
        for finding in findings:
            print(finding, flush=True)
            failed |= finding.mark == "!!"
        print()
    print("something is missing (!!)" if failed else "nothing that was asked for is missing")
    return int(failed)


def _config(arguments: list[str]) -> dict[str, Any]:
    """The parts of the config that are looked at, as plain values."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    from dsrl.llm.price import read_prices, with_prices

    config = compose(arguments, "doctor")
    values: dict[str, Any] = {}
    try:
        for name in LOOKED_AT:
            node = config[name]
            is_node = OmegaConf.is_config(node)
            values[name] = OmegaConf.to_container(node, resolve=True, throw_on_missing=True) if is_node else node
        values["train.python"] = OmegaConf.select(config, "train.python")
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is missing", next_step=f"give {error.full_key}=...") from error
    except OmegaConfBaseException as error:
        raise config_error(error) from error
    if values["prices"] is not None:
        values["teacher"] = with_prices(values["teacher"], read_prices(Path(values["prices"]).expanduser()))
    return values
