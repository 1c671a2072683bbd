"""The only loop over stages: key, look up, else make and store."""

import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsrl.core.component import to_key_value
from dsrl.core.digest import digest
from dsrl.core.disk_space import refusal
from dsrl.core.errors import StageFailed
from dsrl.core.parquet import read_table, write_table
from dsrl.data.model import Model
from dsrl.data.sample import Passage, Rejected, Sample
from dsrl.forecast.workload import outcome
from dsrl.pipeline import cost
from dsrl.pipeline.context import Context
from dsrl.pipeline.stage import SAMPLE_FIELDS, Stage
from dsrl.pipeline.state import Evaluation, PipelineState, Siblings, Subject
from dsrl.pipeline.store import Entry, Manifest

TRIES = 3
"""Times a stage is done while replies are missing that another try may bring."""
TABLES: dict[str, type] = {"passages": Passage, "samples": Sample}
"""Fields of the state that are stored as Parquet; the others go into `values.json`."""
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
    state: PipelineState,
    context: Context,
    *,
    keys: Keys | None = None,
    rounds: int = 1,
    stop_after: str | None = None,
) -> PipelineState:
    """Run every stage in order, as often as there are rounds; the trained model of one is the base of the next."""
    keys = keys or Keys(roots(state))
    for number in range(1, rounds + 1):
        if rounds > 1:
            context.progress.say(f"round {number} of {rounds}")
        begin_round(context, number)
        for name, stage in pipeline.items():
            state = context.state = step(name, stage, state, keys, context)
            if name == stop_after:
                context.metrics["stopped_after"] = name
                return look(pipeline, state, keys, context)
        if number < rounds and state.trained is not None:
            keys.made({"base": keys["trained"]})
            state = dataclasses.replace(state, base=state.trained, trained=None, rejected=(), files={})
    return state


def look(pipeline: Mapping[str, Stage], state: PipelineState, keys: Keys, context: Context) -> PipelineState:
    """The report of a run that stops early: it copes with what isn't there."""
    if "report" in pipeline and context.metrics["stopped_after"] != "report":
        step("report", pipeline["report"], state, keys, context)
    return state


def step(name: str, stage: Stage, state: PipelineState, keys: Keys, context: Context) -> PipelineState:
    """One stage: out of the store if it is there, else made now and stored. Raises `StageFailed` where the disk or
    another part of the operating system refuses."""
    try:
        return _step(name, stage, state, keys, context)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refusal(error, name, context.store.root) from error


def _step(name: str, stage: Stage, state: PipelineState, keys: Keys, context: Context) -> PipelineState:
    context.begin(name)
    started = time.monotonic()
    state = dataclasses.replace(state, figures={})
    if not stage.stored:
        after = stage(state, context)
        note(context, name, "", time.monotonic() - started, reused=False, after=after, new=())
        return after
    if "base" in stage.inputs and state.base is not None:
        state = dataclasses.replace(state, base=state.base.locate())
    parents = {stage.storage_name(need): keys[need] for need in stage.inputs}
    key = stage.key(parents)

    def make(scratch: Path) -> Manifest:
        context.scratch, context.work = scratch, context.store.work(stage.name, key)
        after = whole(name, stage, state, context)
        save(scratch, stage, state, after)
        return Manifest(
            stage=stage.name,
            key=key,
            parts=stage.parts(),
            parents=parents,
            figures=after.figures,
            rows=row_counts(after.figures, after.rejected[len(state.rejected) :]),
            calls=context.ledger.of(name),
            seconds=round(time.monotonic() - started, 2),
            created=time.time(),
            contents=contents(stage, after),
        )

    entry, reused = context.store.get_or_create(stage.name, key, make)
    while context.store.corrupt:
        context.progress.warn(context.store.corrupt.pop())
    keys.made(output_keys(stage, entry.manifest))
    after = load(entry, stage, state, name)
    cost.book(context.metrics, name, context.ledger.of(name), entry.manifest.calls)
    context.metrics["per_sample"] = cost.per_sample(context.metrics, len(after.samples))
    note(context, name, key, time.monotonic() - started, reused, after, after.rejected[len(state.rejected) :])
    return after


def whole(name: str, stage: Stage, state: PipelineState, context: Context) -> PipelineState:
    """The work of a stage with no reply missing that another try could bring: what came is stored, so trying again asks
    for the rest alone. Raises `StageFailed` after three tries, unless `accept_missing`: a result that depends on which
    calls failed must not be taken for the one that its key stands for.
    """
    for tries in range(1, TRIES + 1):
        before = context.ledger.sums(name).lost
        after = stage(state, context)
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


def contents(stage: Stage, after: PipelineState) -> dict[str, str]:
    """Digests of what a stage wrote, if later stages go by these."""
    names = stage.outputs if stage.key_by_output else ()
    return {name: digest(to_key_value(getattr(after, name)), 20) for name in names}


def output_keys(stage: Stage, manifest: Manifest) -> dict[str, str]:
    """What a stage wrote -> the key by which later stages know it."""
    return {name: manifest.contents.get(name, manifest.key) for name in stage.outputs}


def save(folder: Path, stage: Stage, before: PipelineState, after: PipelineState) -> None:
    """What the stage adds, as files of its entry."""
    from pydantic import TypeAdapter

    values = {}
    for name in stage.outputs:
        if name in TABLES:
            write_table(folder / f"{name}.parquet", getattr(after, name), TABLES[name])
        elif name not in SAMPLE_FIELDS:
            values[stage.storage_name(name)] = TypeAdapter(VALUES[name]).dump_python(getattr(after, name), mode="json")
    (folder / "values.json").write_bytes(TypeAdapter(dict[str, Any]).dump_json(values))
    write_table(folder / "rejected.parquet", after.rejected[len(before.rejected) :], Rejected)


def load(entry: Entry, stage: Stage, state: PipelineState, name: str) -> PipelineState:
    """The state with what the entry holds."""
    from pydantic import TypeAdapter

    stored = json.loads((entry.folder / "values.json").read_bytes())
    values: dict[str, Any] = {}
    for slot in stage.outputs:
        if slot in TABLES:
            values[slot] = read_table(entry.folder / f"{slot}.parquet", TABLES[slot])
        elif slot not in SAMPLE_FIELDS:
            values[slot] = TypeAdapter(VALUES[slot]).validate_json(json.dumps(stored[stage.storage_name(slot)]))
    trained = values.get("trained")
    if trained is not None:
        values["trained"] = dataclasses.replace(trained, path=str((entry.folder / trained.path).resolve()))
    files = {f"{name}/{path}": entry.folder / path for path in entry.manifest.files}
    return state.add(
        rejected=read_table(entry.folder / "rejected.parquet", Rejected),
        figures=entry.manifest.figures,
        files={**state.files, **files},
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
    context: Context, name: str, key: str, seconds: float, reused: bool, after: PipelineState, new: tuple[Rejected, ...]
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


def publish(metrics: dict[str, Any], name: str, state: PipelineState) -> None:
    """The blocks of `metrics.json` that other programs read: the figures promised in docs/metrics.md, and no more."""
    if name in BLOCKS:
        metrics[name] = {key: state.figures.get(key) for key in BLOCKS[name]}
    measured = {"base": state.evaluation_base, "trained": state.evaluation_trained}
    found: dict[str, Any] = {
        role: {**_measured(evaluation), "predictions": _predictions(state, role)}
        for role, evaluation in measured.items()
        if evaluation is not None
    }
    if name == "compare":
        found |= {key: state.figures.get(key) for key in ("difference", "clean")}
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


def _predictions(state: PipelineState, role: str) -> str | None:
    """Where the graded replies are, for `dsrl compare` and whoever wants to read them."""
    path = state.files.get(f"evaluate_{role}/predictions.parquet")
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


def roots(state: PipelineState) -> dict[str, Callable[[], str]]:
    task, base = state.task, state.base
    return {
        "definition": lambda: digest(task.definition(), 20),
        "format": lambda: digest(task.format(), 20),
        "test": lambda: task.test.fingerprint() if task.test else "none",
        "base": lambda: base.fingerprint() if base else "none",
    }
