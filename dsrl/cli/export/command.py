"""`dsrl export`: the verb."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.cli.arguments import parse
from dsrl.cli.audit import opened
from dsrl.cli.export import folder as place
from dsrl.cli.export.source import PLACES, Made, of_key, of_run
from dsrl.cli.export.write import SPLITS, Format, Written, write
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

OPTIONS = ("out", "format", "splits", "model", "push", "private", "replace", "store")
FORMATS: dict[str, Format] = {"hf": "hf", "verl": "verl"}
USAGE = (
    "dsrl export RUN out=FOLDER [format=hf|verl] [splits=train,accepted,rejected] [model=false] [push=owner/name] "
    "[private=false] [replace=true] [store=FOLDER]"
)


def export(arguments: list[str]) -> int:
    """Data set, card and trained model of a run, or of an entry of the store, into a folder; and to the hub."""
    given = parse("export", arguments, options=OPTIONS, max_words=1)
    words, options = given.words, given.options
    if len(words) != 1:
        raise UserError("export: which run?", got=" ".join(words) or None, allowed=PLACES, next_step=USAGE)
    if not options.get("out"):
        raise UserError("export: where to?", next_step=f"give out=FOLDER; {USAGE}")
    form = FORMATS[given.choice("format", "hf", tuple(FORMATS))]
    splits = _splits(options, form)
    model, private, replace = (given.flag(name, default=usual) for name, usual in USUAL.items())
    folder = Path(options["out"]).expanduser()
    place.check_free(folder, replace=replace)
    api = _api(options)
    made = _found(words[0], options)
    written = write(made, folder, form, splits, model=model)
    print("\n".join(told(made, folder, form, written)))
    if api is not None:
        from dsrl.cli.export.hub import push

        for address in push(api, folder, options["push"], private=private):
            print(f"pushed   {address}")
    return 0


USUAL = {"model": True, "private": True, "replace": False}


def _splits(options: Mapping[str, str], form: Format) -> tuple[str, ...]:
    if form == "verl":
        if "splits" in options:
            raise UserError(
                "splits belongs to format=hf", got=f"splits={options['splits']}", next_step="take it out: veRL gets "
                "what was selected, and held-out samples to validate with"
            )  # fmt: skip
        return ("accepted",)
    names = tuple(filter(None, options.get("splits", "train,accepted").split(",")))
    if unknown := [name for name in names if name not in SPLITS] or not names:
        raise UserError("splits: no such split", got=unknown if names else "none", allowed=SPLITS)
    return names


def _api(options: Mapping[str, str]) -> "HfApi | None":
    if "push" not in options:
        return None
    from dsrl.cli.export.hub import check_push

    return check_push(options["push"])


def _found(word: str, options: Mapping[str, str]) -> Made:
    """By its folder or by a key. Raises `UserError` where there is neither."""
    run = Path(word).expanduser()
    if (run / "metrics.json").is_file():
        return of_run(run, opened(options, run))
    if run.is_dir():
        raise UserError(f"{run} is no run folder", got="no metrics.json in it", allowed=PLACES)
    return of_key(word, opened(options, None))


def told(made: Made, folder: Path, form: Format, written: Written) -> Iterator[str]:
    """What lies where."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    rows = ", ".join(f"{count} {name}" for name, count in written.rows.items())
    yield f"{folder}: {made.name}, {size / 1e6:.1f} MB"
    if rows:
        shown = f", with {written.pictures} different pictures" if written.pictures else ""
        yield f"rows     {rows}{shown}"
        loaded = "RLHFDataset(data/train.parquet)" if form == "verl" else f'datasets.load_dataset("{folder}")'
        yield f"load     {loaded}; what it is: {folder / 'README.md'}"
    if "train" not in written.rows and made.samples and form == "hf":
        yield "no split `train`: nothing was selected yet"
    if written.model:
        yield f"model    {folder / 'model'}"
