"""Train the quickstart's base model from scratch: `python -m dsrl.quickstart.pretrain --out FOLDER`.

Writes a Hugging Face folder, with `pretraining.json` (recipe and validation) and `pretraining_digests.txt` (one digest
per training story) beside the weights. The folder appears whole or not at all.
"""

import argparse
import importlib
import os
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter

from dsrl.core.errors import UserError
from dsrl.quickstart.base import Pretrain, Recipe


def main(kind: type[Recipe] = Pretrain, description: str | None = __doc__) -> None:
    """Train a recipe of this class; its fields are command-line options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to create; an existing one is left as it is")
    shared, own = (TypeAdapter(cls).json_schema()["properties"] for cls in (Recipe, kind))
    for name, field in own.items():
        text = field.get("description") or shared[name]["description"]
        default = field["default"]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            help=f"{text} ({default})".replace("%", "%%"),
        )
    fields = vars(parser.parse_args())
    out: Path = fields.pop("out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(out.with_name(f".{out.name}.lock")):
        if out.is_dir():
            print(f"{out} exists already", flush=True)
        else:
            train(kind(**fields), out)


def train(recipe: Recipe, out: Path) -> None:
    # Threads that spin while waiting take the CPU from each other on a busy machine: many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        importlib.import_module(recipe.training).pretrain(recipe, out)
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
