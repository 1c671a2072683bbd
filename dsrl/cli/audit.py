"""`dsrl audit write` and `dsrl audit read`: labels checked by hand, and what that says of all of them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.cli.arguments import whole
from dsrl.core.errors import UserError
from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from dsrl.pipeline.store import Entry, Store, damage, write_json

if TYPE_CHECKING:
    from dsrl.stages.report.audit import AuditResult

MAKERS = ("generate", "rewrite")
"""Stages that label samples, in the order in which they run."""
USAGE = "dsrl audit write [rows=50] [run=RUN_FOLDER] [store=FOLDER] [seed=0] [out=audit.csv] | dsrl audit read FILE.csv"
OPTIONS = {"write": ("rows", "run", "store", "seed", "out"), "read": ("store",)}


def audit(arguments: list[str]) -> int:
    """The verb."""
    words = [argument for argument in arguments if "=" not in argument]
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if words[:1] not in (["write"], ["read"]) or len(words) != (2 if words[0] == "read" else 1):
        raise UserError("audit: what?", got=" ".join(words) or None, allowed=USAGE)
    if unknown := sorted(set(options) - set(OPTIONS[words[0]])):
        raise UserError(f"{unknown[0]}: unknown option of audit {words[0]}", allowed=OPTIONS[words[0]])
    return write(options) if words[0] == "write" else read(Path(words[1]).expanduser(), options)


def write(options: Mapping[str, str]) -> int:
    """Make a sheet of some samples of a run, or of those that were used last."""
    from dsrl.stages.report.audit import ALLOWED, draw_stratified, stratum_sizes, write_sheet

    rows, seed = whole(options, "rows", 50, least=1), whole(options, "seed", 0, least=0)
    run = Path(options["run"]).expanduser() if "run" in options else None
    store = opened(options, run)
    entry = newest(store) if run is None else of_run(store, run)
    samples = samples_of(entry)
    out = Path(options["out"]).expanduser() if "out" in options else (run or Path()) / "audit.csv"
    drawn = draw_stratified(samples, rows, seed)
    write_sheet(out, drawn, f"{entry.manifest.stage}/{entry.manifest.key}")
    strata = ", ".join(f"{name}: {size}" for name, size in stratum_sizes(samples).items())
    print(
        f"{out}: {len(drawn)} of the {len(samples)} samples of {entry.manifest.stage} {entry.manifest.key}\n"
        f"answers that agree, over all samples: {strata}\n"
        f"Fill in the column `correct`: {ALLOWED}.\n"
        f"Work out the answer before you look at the solution. Then: dsrl audit read {out}"
    )
    return 0


def read(path: Path, options: Mapping[str, str]) -> int:
    """Say what a filled-in sheet tells about all labels, and keep it for the report."""
    from dsrl.stages.report.audit import ALLOWED, audit_path, estimate_error, read_sheet

    verdicts, source = read_sheet(path)
    store = opened(options, path.absolute().parent)
    stage, _, key = source.partition("/")
    entry = store.find(stage, key)
    if entry is None:
        raise UserError(
            f"{path}: its samples are not in the store", got=source, next_step=f"give store=FOLDER, not {store.root}"
        )
    samples = samples_of(entry)
    if strange := sorted(set(verdicts) - {sample.id for sample in samples}):
        raise UserError(
            f"{path}: {len(strange)} ids are not among the samples of {source}",
            got=", ".join(strange[:5]),
            next_step="leave the column id as it was written",
        )
    if not any(verdict in ("right", "wrong") for verdict in verdicts.values()):
        raise UserError(f"{path}: no row is judged yet", allowed=ALLOWED)
    result = estimate_error(samples, verdicts)
    _keep([path.with_suffix(".json"), audit_path(store.root, key)], result.metrics(source))
    _print_result(result, path)
    return 0


def _keep(places: list[Path], record: dict[str, Any]) -> None:
    for path in places:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, record)
        except OSError as error:
            raise UserError(f"can't write {path}", got=error.strerror) from error


def _print_result(result: "AuditResult", path: Path) -> None:
    for part in result.strata:
        low, high = part.interval if part.judged else (0.0, 1.0)
        found = f"{part.wrong} of {part.judged} wrong, {low:.1%} to {high:.1%}" if part.judged else "none judged"
        print(f"  {part.name:<14} {part.size:>7} samples   {found}")
    print(
        f"wrong labels: {result.estimate:.1%}, 95 % interval {result.low:.1%} to {result.high:.1%}, "
        f"by {result.judged} judged rows"
    )
    if result.unclear or result.blank:
        print(
            f"left out: {result.unclear} unclear and {result.blank} not judged; if those are the hard ones, "
            "the truth is worse"
        )
    if result.unseen:
        print(f"nothing is known about: {', '.join(result.unseen)}")
    print(f"kept as {path.with_suffix('.json')} and in the store: the next report of these samples shows it")


def opened(options: Mapping[str, str], run: Path | None) -> Store:
    """The store that was named, else that of the run folder, else the usual one."""
    root = Path(options.get("store") or _store_of(run) or os.environ.get("DSRL_STORE", "store")).expanduser().absolute()
    if not (root / "stages").is_dir():
        raise UserError(f"no store at {root}", next_step="give store=FOLDER, or run something first")
    return Store(root)


def _store_of(run: Path | None) -> Path | None:
    """The store that a run folder's config names, relative to where the run was started."""
    import yaml

    if run is None or not (run / "config.yaml").is_file() or not (run / "run.json").is_file():
        return None
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    started = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return Path(started["folder"]) / Path(config["store"]).expanduser()


def of_run(store: Store, run: Path) -> Entry:
    """The samples of a run, rewrites among them. Raises `UserError` if it has none."""
    if not (run / "metrics.json").is_file():
        raise UserError("run: no such run folder", got=run, next_step="it holds config.yaml and metrics.json")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    keys = set(metrics.get("keys", {}).values())
    found = {entry.manifest.stage: entry for entry in labelled(store) if entry.manifest.key in keys}
    for stage in reversed(MAKERS):
        if stage in found:
            return found[stage]
    raise UserError("run: it has no samples in the store", got=run, next_step=f"is {store.root} its store?")


def newest(store: Store) -> Entry:
    """The labelled samples that a run used last. Raises `UserError` if there are none."""
    entries = labelled(store)
    if not entries:
        raise UserError(f"no labelled samples in {store.root}", next_step="run something first, or give store=FOLDER")
    used = {entry.manifest.key: (entry.folder / "manifest.json").stat().st_mtime for entry in entries}
    return max(entries, key=lambda entry: (used[entry.manifest.key], MAKERS.index(entry.manifest.stage)))


def labelled(store: Store) -> list[Entry]:
    """Entries of the stages that label samples."""
    return [entry for stage in MAKERS for entry in store.entries(stage)]


def samples_of(entry: Entry) -> tuple[Sample, ...]:
    """The entry's samples. Raises `UserError` where the entry is damaged."""
    if fault := damage(entry):
        raise UserError(f"the store entry {entry.folder} is damaged", got=fault, next_step="run again to make it anew")
    return read_table(entry.folder / "samples.parquet", Sample)
