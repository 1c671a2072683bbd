"""Checks in the trainer's environment, before the run: packages, veRL's version, and the config's keys.

`python -m dsrl.stages.train.verl.preflight FILE` reads the request from a JSON file, and prints one JSON object whose
`problem` is an error message or null.
"""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.stages.train.verl.config_schema import VERSION, compose_config
from dsrl.stages.train.verl.nodes import installed_version

NEEDED = ("verl", "vllm", "ray", "torch", "transformers", "TransferQueue")


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    problem = None
    with contextlib.redirect_stdout(sys.stderr):
        try:
            check(request)
        except UserError as error:
            problem = str(error)
    print(json.dumps({"problem": problem}))


def check(request: dict[str, Any]) -> None:
    """Check packages, then keys; with overrides of the user also veRL's own validation. Raises `UserError`."""
    missing = [name for name in NEEDED if installed_version(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} must be installed in the trainer's environment",
            got=sys.prefix,
            next_step="make verl and train.python=.venv-verl/bin/python, or on GPUs: pip install 'dsrl[gpu]'",
        )
    if installed_version("verl") != VERSION:
        raise UserError(
            "dsrl doesn't support this version of veRL",
            got=installed_version("verl"),
            allowed=VERSION,
            next_step=f"pip install verl=={VERSION}",
        )
    config = compose_config(request["config"], request["overrides"])
    if request["overrides"]:
        from dsrl.stages.train.verl.launch import validate

        validate(config, model_exists=False)


if __name__ == "__main__":
    main()
