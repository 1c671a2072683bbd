"""`dsrl export`: data set, card and trained model of a run or store entry, into a folder and to the hub."""

from collections.abc import Iterator
from pathlib import Path

from dsrl.cli.arguments import Arguments, parse
from dsrl.cli.audit import open_store
from dsrl.cli.export.folder import check_free
from dsrl.cli.export.source import PLACES, ExportSource, source_of_key, source_of_run
from dsrl.cli.export.write import SPLITS, ExportFormat, Written, write
from dsrl.core.errors import UserError

OPTIONS = ("out", "format", "splits", "model", "push", "private", "replace", "store")
FORMATS: dict[str, ExportFormat] = {"hf": "hf", "verl": "verl"}
USAGE = (
    "dsrl export RUN out=FOLDER [format=hf|verl] [splits=train,accepted,rejected] [model=false] [push=owner/name] "
    "[private=false] [replace=true] [store=FOLDER]"
)


def export(arguments: list[str]) -> int:
    """`dsrl export RUN out=FOLDER ...`."""
    given = parse("export", arguments, options=OPTIONS, max_words=1)
    if not given.words:
        raise UserError("export needs a run", allowed=PLACES, next_step=USAGE)
    if not given.options.get("out"):
        raise UserError("export needs a folder", next_step=f"give out=FOLDER; {USAGE}")
    form = FORMATS[given.choice("format", "hf", tuple(FORMATS))]
    splits = _splits(given, form)
    model, private = given.flag("model", default=True), given.flag("private", default=True)
    folder = Path(given.options["out"]).expanduser()
    check_free(folder, replace=given.flag("replace"))
    api = None
    if "push" in given.options:
        from dsrl.cli.export.hub import check_push, push

        api = check_push(given.options["push"])
    source = _find(given)
    written = write(source, folder, form, splits, model=model)
    print("\n".join(describe(source, folder, form, written)))
    if api is not None:
        for address in push(api, folder, given.options["push"], private=private):
            print(f"pushed   {address}")
    return 0


def _splits(given: Arguments, form: ExportFormat) -> tuple[str, ...]:
    if form == "verl":
        if "splits" in given.options:
            raise UserError(
                "splits belongs to format=hf",
                got=f"splits={given.options['splits']}",
                next_step="take it out: rows for veRL are the selected samples, and held-out samples for validation",
            )
        return ("accepted",)
    names = tuple(filter(None, given.options.get("splits", "train,accepted").split(",")))
    if unknown := [name for name in names if name not in SPLITS] or not names:
        raise UserError("splits: no such split", got=unknown if names else "none", allowed=SPLITS)
    return names


def _find(given: Arguments) -> ExportSource:
    """A run by its folder, or an entry by its key. Raises `UserError` if there is neither."""
    run = Path(given.words[0]).expanduser()
    if (run / "metrics.json").is_file():
        return source_of_run(run, open_store(given, run))
    if run.is_dir():
        raise UserError(f"{run} is not a run folder", got="no metrics.json in it", allowed=PLACES)
    return source_of_key(given.words[0], open_store(given, None))


def describe(source: ExportSource, folder: Path, form: ExportFormat, written: Written) -> Iterator[str]:
    """What the folder holds."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    rows = ", ".join(f"{count} {name}" for name, count in written.rows.items())
    yield f"{folder}: {source.name}, {size / 1e6:.1f} MB"
    if rows:
        images = f", with {written.images} different images" if written.images else ""
        yield f"rows     {rows}{images}"
        loader = "RLHFDataset(data/train.parquet)" if form == "verl" else f'datasets.load_dataset("{folder}")'
        yield f"load     {loader}; described in {folder / 'README.md'}"
    if "train" not in written.rows and source.samples and form == "hf":
        yield "no split `train`: nothing was selected yet"
    if written.model:
        yield f"model    {folder / 'model'}"
