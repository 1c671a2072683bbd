"""Train the quickstart's base model from scratch: `python -m dsrl.quickstart.pretrain --out FOLDER`.

Writes an ordinary Hugging Face folder, with `pretraining.json` (recipe and validation) and `pretraining_digests.txt`
(one digest for each story it has read) beside the weights. The folder appears whole or not at all.
"""

import argparse
import importlib
import os
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from dsrl.core.errors import UserError
from dsrl.quickstart.base import Pretrain, Recipe


def main(kind: type[Recipe] = Pretrain, about: str | None = __doc__) -> None:
    """Carry out a recipe whose fields are given on the command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to be made; one that exists is left as it is")
    for name, fact in TypeAdapter(kind).json_schema()["properties"].items():
        text = f"{fact['description']} ({fact['default']})".replace("%", "%%")
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(fact["default"]), default=fact["default"], help=text
        )
    given = vars(parser.parse_args())
    out: Path = given.pop("out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_name(f".{out.name}.lock")):
        if out.is_dir():
            print(f"{out} is there already", flush=True)
        else:
            train(kind(**given), out)


def train(recipe: Recipe, out: Path) -> None:
    # Threads that wait awake take the processor from each other on a busy machine: many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        importlib.import_module(recipe.training).pretrain(recipe, out)
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
