"""`dsrl audit`: check labels by hand on a sheet, and estimate from it how many of all labels are wrong."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.arguments import Arguments, parse, store_root
from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from dsrl.pipeline.store import Entry, Store, damage, write_json

if TYPE_CHECKING:
    from dsrl.stages.report.audit import AuditResult

LABELLING_STAGES = ("generate", "rewrite")
"""Stages that label samples, in the order in which they run."""
USAGE = "dsrl audit write [rows=50] [run=RUN_FOLDER] [store=FOLDER] [seed=0] [out=audit.csv] | dsrl audit read FILE.csv"
OPTIONS = {"write": ("rows", "run", "store", "seed", "out"), "read": ("store",)}


def audit(arguments: list[str]) -> int:
    """`dsrl audit write` or `dsrl audit read FILE.csv`."""
    action = next((word for word in arguments if "=" not in word), "")
    if action not in OPTIONS:
        raise UserError("audit needs `write`, or `read` and a file", got=action or None, allowed=USAGE)
    given = parse(f"audit {action}", arguments, options=OPTIONS[action], max_words=2)
    if len(given.words) != (2 if action == "read" else 1):
        raise UserError("audit needs `write`, or `read` and a file", got=" ".join(given.words), allowed=USAGE)
    return write(given) if action == "write" else read(given, Path(given.words[1]).expanduser())


def write(given: Arguments) -> int:
    """Write a sheet with samples of a run, or of the samples that were used last."""
    from dsrl.stages.report.audit import ALLOWED, draw_stratified, stratum_sizes, write_sheet

    options = given.options
    rows, seed = given.integer("rows", 50, minimum=1), given.integer("seed", 0)
    run = Path(options["run"]).expanduser() if "run" in options else None
    store = open_store(given, run)
    entry = latest_samples(store) if run is None else samples_of_run(store, run)
    samples = read_samples(entry)
    out = Path(options["out"]).expanduser() if "out" in options else (run or Path()) / "audit.csv"
    drawn = draw_stratified(samples, rows, seed)
    write_sheet(out, drawn, f"{entry.manifest.stage}/{entry.manifest.key}")
    strata = ", ".join(f"{name}: {size}" for name, size in stratum_sizes(samples).items())
    print(
        f"{out}: {len(drawn)} of the {len(samples)} samples of {entry.manifest.stage} {entry.manifest.key}\n"
        f"share of agreeing answers, over all samples: {strata}\n"
        f"Fill in the column `correct`: {ALLOWED}.\n"
        f"Work out the answer before you look at the solution. Then: dsrl audit read {out}"
    )
    return 0


def read(given: Arguments, path: Path) -> int:
    """Print what a filled-in sheet says about all labels, and keep it for the report."""
    from dsrl.stages.report.audit import ALLOWED, audit_path, estimate_error, read_sheet

    verdicts, source = read_sheet(path)
    store = open_store(given, path.absolute().parent)
    stage, _, key = source.partition("/")
    entry = store.find(stage, key)
    if entry is None:
        raise UserError(
            f"{path}: its samples are not in the store", got=source, next_step=f"give store=FOLDER, not {store.root}"
        )
    samples = read_samples(entry)
    if unknown := sorted(set(verdicts) - {sample.id for sample in samples}):
        raise UserError(
            f"{path}: {len(unknown)} ids are not among the samples of {source}",
            got=", ".join(unknown[:5]),
            next_step="leave the column id as it was written",
        )
    if not any(verdict in ("right", "wrong") for verdict in verdicts.values()):
        raise UserError(f"{path}: no row is judged yet", allowed=ALLOWED)
    result = estimate_error(samples, verdicts)
    record = result.metrics(source)
    for target in (path.with_suffix(".json"), audit_path(store.root, key)):
        _write_record(target, record)
    _print_result(result, path)
    return 0


def _write_record(path: Path, record: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    except OSError as error:
        raise UserError(f"can't write {path}", got=error.strerror) from error


def _print_result(result: "AuditResult", path: Path) -> None:
    for part in result.strata:
        low, high = part.interval if part.judged else (0.0, 1.0)
        words = f"{part.wrong} of {part.judged} wrong, {low:.1%} to {high:.1%}" if part.judged else "none judged"
        print(f"  {part.name:<14} {part.size:>7} samples   {words}")
    print(
        f"wrong labels: {result.estimate:.1%}, 95 % interval {result.low:.1%} to {result.high:.1%}, "
        f"from {result.judged} judged rows"
    )
    if result.unclear or result.blank:
        print(
            f"not counted: {result.unclear} unclear and {result.blank} not judged; if these are the hard ones, "
            "more labels are wrong than estimated"
        )
    if result.unseen:
        print(f"no estimate for: {', '.join(result.unseen)}")
    print(f"saved as {path.with_suffix('.json')} and in the store: the next report of these samples shows it")


def open_store(given: Arguments, run: Path | None) -> Store:
    """The store that was given, else that of the run folder, else the default one."""
    root = given.options.get("store") or _store_of_run(run)
    store = Store(store_root(root))
    if not (store.root / "stages").is_dir():
        raise UserError(f"no store at {store.root}", next_step="give store=FOLDER, or run something first")
    return store


def _store_of_run(run: Path | None) -> str | None:
    """The store in a run folder's config, relative to where the run was started."""
    import yaml

    if run is None or not (run / "config.yaml").is_file() or not (run / "run.json").is_file():
        return None
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    started_in = json.loads((run / "run.json").read_text(encoding="utf-8"))["folder"]
    return str(Path(started_in) / Path(config["store"]).expanduser())


def samples_of_run(store: Store, run: Path) -> Entry:
    """The labelled samples of a run, after rewriting. Raises `UserError` if it has none."""
    if not (run / "metrics.json").is_file():
        raise UserError("run: not a run folder", got=run, allowed="a folder with config.yaml and metrics.json")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    keys = set(metrics.get("keys", {}).values())
    entries = {entry.manifest.stage: entry for entry in labelled_entries(store) if entry.manifest.key in keys}
    for stage in reversed(LABELLING_STAGES):
        if stage in entries:
            return entries[stage]
    raise UserError("run: it has no samples in the store", got=run, next_step=f"is {store.root} its store?")


def latest_samples(store: Store) -> Entry:
    """The labelled samples that a run used last. Raises `UserError` if there are none."""
    entries = labelled_entries(store)
    if not entries:
        raise UserError(f"no labelled samples in {store.root}", next_step="run something first, or give store=FOLDER")
    used = {entry.manifest.key: (entry.folder / "manifest.json").stat().st_mtime for entry in entries}
    return max(entries, key=lambda one: (used[one.manifest.key], LABELLING_STAGES.index(one.manifest.stage)))


def labelled_entries(store: Store) -> list[Entry]:
    return [entry for stage in LABELLING_STAGES for entry in store.entries(stage)]


def read_samples(entry: Entry) -> tuple[Sample, ...]:
    """The entry's samples. Raises `UserError` if the entry is damaged."""
    if fault := damage(entry):
        raise UserError(f"the store entry {entry.folder} is damaged", got=fault, next_step="run again to make it anew")
    return read_table(entry.folder / "samples.parquet", Sample)
