"""The loop over stages: work out the key, look it up in the store, else run the stage and store its result."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsrl.core.component import to_key_value
from dsrl.core.digest import digest
from dsrl.core.disk_space import check_room, refusal
from dsrl.core.errors import StageFailed
from dsrl.core.parquet import read_table, write_table
from dsrl.data.evaluation import Evaluation
from dsrl.data.model import Model
from dsrl.data.sample import Passage, Rejected, Sample
from dsrl.pipeline.context import Context
from dsrl.pipeline.metrics import begin_round, count_rows, record_stage
from dsrl.pipeline.stage import SAMPLE_FIELDS, Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Entry, Manifest

MAX_ATTEMPTS = 3
"""Runs of a stage while replies are missing that another attempt may bring."""
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


class Keys:
    """Maps each stage output and external input to its key. The keys of external inputs are computed on first use,
    because the base model may have to be made first."""

    def __init__(self, state: PipelineState) -> None:
        task, base = state.task, state.base
        self._external: dict[str, Callable[[], str]] = {
            "definition": lambda: digest(task.definition(), 20),
            "format": lambda: digest(task.format(), 20),
            "test": lambda: task.test.fingerprint() if task.test else "none",
            "base": lambda: base.fingerprint() if base else "none",
        }
        self._known: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._external[name]()
        return self._known[name]

    def update(self, keys: Mapping[str, str]) -> None:
        self._known.update(keys)

    def parents(self, stage: Stage) -> dict[str, str]:
        """Storage name -> key of everything that the stage reads."""
        return {stage.storage_name(name): self[name] for name in stage.inputs}


def run_stages(
    pipeline: Mapping[str, Stage],
    state: PipelineState,
    context: Context,
    *,
    rounds: int = 1,
    stop_after: str | None = None,
) -> PipelineState:
    """Run every stage in order, once per round. The trained model of one round is the base model of the next."""
    keys = Keys(state)
    for number in range(1, rounds + 1):
        if rounds > 1:
            context.progress.say(f"round {number} of {rounds}")
        begin_round(context, number)
        for name, stage in pipeline.items():
            state = context.state = run_stage(name, stage, state, keys, context)
            if name == stop_after:
                context.metrics["stopped_after"] = name
                return report_early_stop(pipeline, state, keys, context)
        if number < rounds and state.trained is not None:
            keys.update({"base": keys["trained"]})
            state = dataclasses.replace(state, base=state.trained, trained=None, rejected=(), files={})
    return state


def report_early_stop(
    pipeline: Mapping[str, Stage], state: PipelineState, keys: Keys, context: Context
) -> PipelineState:
    """Run the later stages that describe an unfinished run, such as the report."""
    names = list(pipeline)
    for name in names[names.index(context.metrics["stopped_after"]) + 1 :]:
        if pipeline[name].runs_after_stop:
            run_stage(name, pipeline[name], state, keys, context)
    return state


def run_stage(name: str, stage: Stage, state: PipelineState, keys: Keys, context: Context) -> PipelineState:
    """Take one stage's result from the store, or run the stage and store it. Raises `StageFailed` if the operating
    system refuses something, such as space on the disk."""
    try:
        context.begin(name)
        state = dataclasses.replace(state, figures={})
        return _stored(name, stage, state, keys, context) if stage.stored else _unstored(name, stage, state, context)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refusal(error, name, context.store.root) from error


def _unstored(name: str, stage: Stage, state: PipelineState, context: Context) -> PipelineState:
    started = time.monotonic()
    after = stage(state, context)
    record_stage(context, name, stage, after, seconds=time.monotonic() - started)
    return after


def _stored(name: str, stage: Stage, state: PipelineState, keys: Keys, context: Context) -> PipelineState:
    started = time.monotonic()
    if "base" in stage.inputs and state.base is not None:
        state = dataclasses.replace(state, base=state.base.locate())
    parents = keys.parents(stage)
    key = stage.key(parents)

    def make(scratch: Path) -> Manifest:
        check_room(context.store.root)
        context.scratch, context.work = scratch, context.store.checkpoint_dir(stage.name, key)
        after = run_with_retries(name, stage, state, context)
        save(scratch, stage, state, after)
        return Manifest(
            stage=stage.name,
            key=key,
            parts=stage.parts(),
            parents=parents,
            figures=after.figures,
            rows=count_rows(after.figures, after.rejected[len(state.rejected) :]),
            calls=context.ledger.of(name),
            seconds=round(time.monotonic() - started, 2),
            created=time.time(),
            contents=digest_outputs(stage, after),
        )

    entry, reused = context.store.get_or_create(stage.name, key, make)
    while context.store.corrupt:
        context.progress.warn(context.store.corrupt.pop())
    keys.update(output_keys(stage, entry.manifest))
    after = load(entry, stage, state, name)
    record_stage(
        context,
        name,
        stage,
        after,
        seconds=time.monotonic() - started,
        rejected=after.rejected[len(state.rejected) :],
        manifest=entry.manifest,
        reused=reused,
    )
    return after


def run_with_retries(name: str, stage: Stage, state: PipelineState, context: Context) -> PipelineState:
    """Run a stage until no reply is missing that another attempt could bring. Replies that came are cached, so another
    attempt asks only for the rest.

    Raises `StageFailed` after three attempts unless `accept_missing`: a result that depends on which calls failed must
    not be stored as the result of its key.
    """
    for attempt in range(1, MAX_ATTEMPTS + 1):
        before = context.ledger.sums(name).lost
        after = stage(state, context)
        missing = context.ledger.sums(name).lost - before
        if missing == 0:
            return after
        if attempt < MAX_ATTEMPTS:
            context.progress.say(f"{name}: {missing} replies are missing; requesting them again")
            for path in context.scratch.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not context.accept_missing:
        raise StageFailed(
            f"{name}: {missing} replies are still missing",
            got=f"{MAX_ATTEMPTS} attempts, each with all its retries",
            next_step="run the same command, which requests only these; or accept_missing=true to go on without them",
        )
    context.progress.warn(f"{name}: {missing} replies are missing, and the result is stored without them")
    return after


def digest_outputs(stage: Stage, after: PipelineState) -> dict[str, str]:
    """Digests of a stage's outputs, if later stages are keyed by these."""
    names = stage.outputs if stage.key_by_output else ()
    return {name: digest(to_key_value(getattr(after, name)), 20) for name in names}


def output_keys(stage: Stage, manifest: Manifest) -> dict[str, str]:
    """Stage output -> the key by which later stages know it."""
    return {name: manifest.contents.get(name, manifest.key) for name in stage.outputs}


def save(folder: Path, stage: Stage, before: PipelineState, after: PipelineState) -> None:
    """Write the stage's outputs and rejected candidates as files of its store entry."""
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
    """The state with what the stage's store entry holds."""
    from pydantic import TypeAdapter

    stored = json.loads((entry.folder / "values.json").read_bytes())
    values: dict[str, Any] = {}
    for output in stage.outputs:
        if output in TABLES:
            values[output] = read_table(entry.folder / f"{output}.parquet", TABLES[output])
        elif output not in SAMPLE_FIELDS:
            values[output] = TypeAdapter(VALUES[output]).validate_json(json.dumps(stored[stage.storage_name(output)]))
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
