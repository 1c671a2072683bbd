"""The only loop over stages: key, look up, else make and store."""

import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsrl.core.component import identify
from dsrl.core.digest import digest
from dsrl.core.disk_space import refusal
from dsrl.core.errors import StageFailed
from dsrl.core.parquet import read_table, write_table
from dsrl.data.model import Model
from dsrl.data.sample import Passage, Rejected, Sample
from dsrl.forecast.workload import outcome
from dsrl.pipeline import cost
from dsrl.pipeline.context import Context
from dsrl.pipeline.stage import FACTS, Stage
from dsrl.pipeline.state import Evaluation, Siblings, Study, Subject
from dsrl.pipeline.store import Entry, Manifest

TRIES = 3
"""Times a stage is done while replies are missing that another try may bring."""
TABLES: dict[str, type] = {"passages": Passage, "samples": Sample}
"""Fields of the study that are stored as Parquet; the others go into `values.json`."""
VALUES: dict[str, Any] = {
    "keywords": tuple[str, ...],
    "selected": tuple[str, ...],
    "control": tuple[str, ...],
    "trained": Model | None,
    "evaluation_base": Evaluation | None,
    "evaluation_trained": Evaluation | None,
}

BLOCKS = {
    "score": ("samples", "rollouts", "mean_pass_rate", "zero", "one", "histogram", "sequential"),
    "decontaminate": ("policy", "samples", "matched", "dropped", "items", "kinds", "silent"),
    "select": ("m", "selected", "shortfall"),
    "diversity": ("sets", "edges", "drawn", "answers"),
    "train": (
        "algorithm",
        "engine",
        "steps",
        "reward_first",
        "reward_last",
        "readiness",
        "memory",
        "rollout_probs_diff_mean",
    ),
}
"""Blocks of `metrics.json` -> the figures of that stage that stand in them."""


PER_ROUND = ("keys", "seconds", "reused", "rows", "stages", "calls_by_stage", "cost")
"""Parts of `metrics.json` that begin anew with each round."""


class Keys:
    """Which key made what; roots are worked out when first asked for: the base model may have to be made."""

    def __init__(self, roots: Mapping[str, Callable[[], str]]) -> None:
        self._roots = dict(roots)
        self._known: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._roots[name]()
        return self._known[name]

    def made(self, keys: Mapping[str, str]) -> None:
        self._known.update(keys)


def run(
    pipeline: Mapping[str, Stage],
    study: Study,
    context: Context,
    *,
    keys: Keys | None = None,
    rounds: int = 1,
    stop_after: str | None = None,
) -> Study:
    """Run every stage in order, as often as there are rounds; the trained model of one is the base of the next."""
    keys = keys or Keys(roots(study))
    for number in range(1, rounds + 1):
        if rounds > 1:
            context.progress.say(f"round {number} of {rounds}")
        begin_round(context, number)
        for name, stage in pipeline.items():
            study = context.study = step(name, stage, study, keys, context)
            if name == stop_after:
                context.metrics["stopped_after"] = name
                return look(pipeline, study, keys, context)
        if number < rounds and study.trained is not None:
            keys.made({"base": keys["trained"]})
            study = dataclasses.replace(study, base=study.trained, trained=None, rejected=(), files={})
    return study


def look(pipeline: Mapping[str, Stage], study: Study, keys: Keys, context: Context) -> Study:
    """The report of a run that stops early: it copes with what isn't there."""
    if "report" in pipeline and context.metrics["stopped_after"] != "report":
        step("report", pipeline["report"], study, keys, context)
    return study


def step(name: str, stage: Stage, study: Study, keys: Keys, context: Context) -> Study:
    """One stage: out of the store if it is there, else made now and stored. Raises `StageFailed` where the disk or
    another part of the operating system refuses."""
    try:
        return _step(name, stage, study, keys, context)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refusal(error, name, context.store.root) from error


def _step(name: str, stage: Stage, study: Study, keys: Keys, context: Context) -> Study:
    context.begin(name)
    started = time.monotonic()
    study = dataclasses.replace(study, figures={})
    if not stage.stored:
        after = stage(study, context)
        note(context, name, "", time.monotonic() - started, reused=False, after=after, new=())
        return after
    if "base" in stage.reads() and study.base is not None:
        study = dataclasses.replace(study, base=study.base.located())
    parents = {stage.neutral(need): keys[need] for need in stage.reads()}
    key = stage.key(parents)

    def make(scratch: Path) -> Manifest:
        context.scratch, context.work = scratch, context.store.work(stage.name, key)
        after = whole(name, stage, study, context)
        save(scratch, stage, study, after)
        return Manifest(
            stage=stage.name,
            key=key,
            parts=stage.parts(),
            parents=parents,
            figures=after.figures,
            rows=row_counts(after.figures, after.rejected[len(study.rejected) :]),
            calls=context.ledger.of(name),
            seconds=round(time.monotonic() - started, 2),
            created=time.time(),
            contents=contents(stage, after),
        )

    entry, reused = context.store.remembered(stage.name, key, make)
    while context.store.corrupt:
        context.progress.warn(context.store.corrupt.pop())
    keys.made(handed_on(stage, entry.manifest))
    after = load(entry, stage, study, name)
    cost.book(context.metrics, name, context.ledger.of(name), entry.manifest.calls)
    context.metrics["per_sample"] = cost.per_sample(context.metrics, len(after.samples))
    note(context, name, key, time.monotonic() - started, reused, after, after.rejected[len(study.rejected) :])
    return after


def whole(name: str, stage: Stage, study: Study, context: Context) -> Study:
    """The work of a stage with no reply missing that another try could bring: what came is stored, so trying again asks
    for the rest alone. Raises `StageFailed` after three tries, unless `accept_missing`: a result that depends on which
    calls failed must not be taken for the one that its key stands for.
    """
    for tries in range(1, TRIES + 1):
        before = context.ledger.sums(name).lost
        after = stage(study, context)
        missing = context.ledger.sums(name).lost - before
        if missing == 0:
            return after
        if tries < TRIES:
            context.progress.say(f"{name}: {missing} replies are missing; asking for these again")
            for path in context.scratch.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not context.accept_missing:
        raise StageFailed(
            f"{name}: {missing} replies are still missing",
            got=f"{TRIES} tries, each with all repeats",
            next_step="run the same command, which asks for these alone; or accept_missing=true to go on without",
        )
    context.progress.warn(f"{name}: {missing} replies are missing, and the result is stored without them")
    return after


def contents(stage: Stage, after: Study) -> dict[str, str]:
    """Digests of what a stage wrote, if later stages go by these."""
    names = stage.writes() if stage.by_content else ()
    return {name: digest(identify(getattr(after, name)), 20) for name in names}


def handed_on(stage: Stage, manifest: Manifest) -> dict[str, str]:
    """What a stage wrote -> the key by which later stages know it."""
    return {name: manifest.contents.get(name, manifest.key) for name in stage.writes()}


def save(folder: Path, stage: Stage, before: Study, after: Study) -> None:
    """What the stage adds, as files of its entry."""
    from pydantic import TypeAdapter

    values = {}
    for name in stage.writes():
        if name in TABLES:
            write_table(folder / f"{name}.parquet", getattr(after, name), TABLES[name])
        elif name not in FACTS:
            values[stage.neutral(name)] = TypeAdapter(VALUES[name]).dump_python(getattr(after, name), mode="json")
    (folder / "values.json").write_bytes(TypeAdapter(dict[str, Any]).dump_json(values))
    write_table(folder / "rejected.parquet", after.rejected[len(before.rejected) :], Rejected)


def load(entry: Entry, stage: Stage, study: Study, name: str) -> Study:
    """The study with what the entry holds."""
    from pydantic import TypeAdapter

    stored = json.loads((entry.folder / "values.json").read_bytes())
    values: dict[str, Any] = {}
    for slot in stage.writes():
        if slot in TABLES:
            values[slot] = read_table(entry.folder / f"{slot}.parquet", TABLES[slot])
        elif slot not in FACTS:
            values[slot] = TypeAdapter(VALUES[slot]).validate_json(json.dumps(stored[stage.neutral(slot)]))
    trained = values.get("trained")
    if trained is not None:
        values["trained"] = dataclasses.replace(trained, path=str((entry.folder / trained.path).resolve()))
    files = {f"{name}/{path}": entry.folder / path for path in entry.manifest.files}
    return study.add(
        rejected=read_table(entry.folder / "rejected.parquet", Rejected),
        figures=entry.manifest.figures,
        files={**study.files, **files},
        **values,
    )


def row_counts(figures: Mapping[str, Any], rejected: tuple[Rejected, ...]) -> dict[str, Any]:
    """Rows in, out, and why the rest did not get through."""
    counts = Counter(candidate.reason for candidate in rejected)
    return {**figures.get("rows", {}), "rejected": dict(counts.most_common())}


def begin_round(context: Context, number: int) -> None:
    """Open the place in `metrics.json` where this round's figures go; the latest round's also stand at the top."""
    metrics = context.metrics
    if number > 1:
        finished = {key: metrics[key] for key in PER_ROUND}
        metrics.setdefault("rounds", []).append(finished)
    for key in PER_ROUND:
        metrics[key] = {}


def note(
    context: Context, name: str, key: str, seconds: float, reused: bool, after: Study, new: tuple[Rejected, ...]
) -> None:
    """Book a finished stage in `metrics.json` and print its line."""
    metrics = context.metrics
    metrics["seconds"][name] = round(seconds, 2)
    metrics["stages"][name] = after.figures
    publish(metrics, name, after)
    rows = row_counts(after.figures, new)
    if key:
        metrics["keys"][name] = key
        metrics["reused"][name] = reused
        if "rows" in after.figures or new:
            metrics["rows"][name] = rows
    metrics["calls"] = context.ledger.totals()
    if key and not reused and name in metrics.get("forecast", {}):
        metrics["forecast"][name].update(outcome(metrics["forecast"][name], context.ledger.of(name)))
    context.write_metrics()
    flow = f"{rows['in']:>6} -> {rows['out']:<6}" if "in" in rows and "out" in rows else " " * 16
    how = "stored" if reused else f"{seconds:.1f} s"
    context.progress.say(f"{name:<17}{flow} {how:>8}  {summary(after.figures, new)}".rstrip())


def publish(metrics: dict[str, Any], name: str, study: Study) -> None:
    """The blocks of `metrics.json` that other programs read: the figures promised in docs/metrics.md, and no more."""
    if name in BLOCKS:
        metrics[name] = {key: study.figures.get(key) for key in BLOCKS[name]}
    measured = {"base": study.evaluation_base, "trained": study.evaluation_trained}
    found: dict[str, Any] = {
        role: {**_measured(evaluation), "predictions": _predictions(study, role)}
        for role, evaluation in measured.items()
        if evaluation is not None
    }
    if name == "compare":
        found |= {key: study.figures.get(key) for key in ("difference", "clean")}
    if found:
        metrics["evaluate"] = {**metrics.get("evaluate", {}), **found}


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    figures = {name: getattr(evaluation, name) for name in ("greedy", "format_ok", "format_free", "truncated")}
    return {
        "n": evaluation.num_items,
        "samples_per_item": evaluation.samples_per_item,
        "temperature": evaluation.temperature,
        "pass_at_1": evaluation.pass_at_1.value,
        "low": evaluation.pass_at_1.low,
        "high": evaluation.pass_at_1.high,
        **{name: found.value for name, found in figures.items()},
        "intervals": {name: [found.low, found.high] for name, found in figures.items()},
        "num_errors": evaluation.num_errors,
        "subjects": {subject.name: _of_subject(subject) for subject in evaluation.subjects},
        "tiers": {tier.name: _of_subject(tier) for tier in evaluation.tiers},
        "groups": _of_siblings(evaluation.siblings),
    }


def _predictions(study: Study, role: str) -> str | None:
    """Where the graded replies are, for `dsrl compare` and whoever wants to read them."""
    path = study.files.get(f"evaluate_{role}/predictions.parquet")
    return str(path) if path else None


def _of_subject(subject: Subject) -> dict[str, Any]:
    figures = {"pass_at_1": subject.pass_at_1, "greedy": subject.greedy}
    return {"n": subject.num_items, **{name: found and dataclasses.asdict(found) for name, found in figures.items()}}


def _of_siblings(siblings: Siblings | None) -> dict[str, Any] | None:
    if siblings is None:
        return None
    figures = {"pass_at_1": siblings.pass_at_1, "worst": siblings.worst}
    return {"n": siblings.num_groups, **{name: found and dataclasses.asdict(found) for name, found in figures.items()}}


def summary(figures: Mapping[str, Any], rejected: tuple[Rejected, ...]) -> str:
    """A stage's line in words: its scalar figures, then what was rejected."""
    scalars = [f"{name} {_short(value)}" for name, value in figures.items() if isinstance(value, (int, float, str))]
    counts = Counter(candidate.reason for candidate in rejected).most_common(3)
    return "  ".join(scalars[:5] + [f"{count} x {reason}" for reason, count in counts])


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def roots(study: Study) -> dict[str, Callable[[], str]]:
    task, base = study.task, study.base
    return {
        "definition": lambda: digest(task.definition(), 20),
        "format": lambda: digest(task.format(), 20),
        "test": lambda: task.test.fingerprint() if task.test else "none",
        "base": lambda: base.fingerprint() if base else "none",
    }
