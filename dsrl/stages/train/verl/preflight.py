"""Whether the trainer's environment and veRL's tree take what a run asks for, a JSON file named as the argument.

Answers with one JSON object on standard output: `problem`, or null.
"""

import contextlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dsrl.core.errors import UserError
from dsrl.stages.train.verl.config_schema import VERSION, compose_tree

NEEDED = ("verl", "vllm", "ray", "torch", "transformers", "TransferQueue")


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer: dict[str, str | None] = {"problem": None}
    with contextlib.redirect_stdout(sys.stderr):
        try:
            look(asked)
        except UserError as error:
            answer = {"problem": str(error)}
    print(json.dumps(answer))


def look(asked: dict[str, Any]) -> None:
    """Packages, then keys; the whole of veRL's own checks where the user has overrides. Raises `UserError`."""
    missing = [name for name in NEEDED if _version(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)} must be installed in the trainer's environment",
            got=sys.prefix,
            next_step="make verl and train.python=.venv-verl/bin/python, or on GPUs: pip install 'dsrl[gpu]'",
        )
    if _version("verl") != VERSION:
        raise UserError(
            "another veRL than the one that dsrl speaks to",
            got=_version("verl"),
            allowed=VERSION,
            next_step=f"pip install verl=={VERSION}",
        )
    tree = compose_tree(asked["patch"], asked["overrides"])
    if asked["whole"]:
        from dsrl.stages.train.verl.launch import validate

        validate(tree, model_is_there=False)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
