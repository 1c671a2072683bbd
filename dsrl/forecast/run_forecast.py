"""Walks through a pipeline before it runs: what is in the store, and the workload of every other stage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dsrl.data.model import Model, count_parameters
from dsrl.forecast.estimate import Range
from dsrl.forecast.workload import ForecastState, ForecastsWorkload, Workload, add_known
from dsrl.llm import ReplyCache
from dsrl.pipeline.runner import Keys, load, output_keys
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Entry, Store

Status = Literal["stored", "begun", "new", "unknown"]


@dataclass(frozen=True)
class ForecastRow:
    """The forecast of one stage."""

    stage: str
    status: Status
    """`stored`: nothing is left to do; `begun`: some of its replies are cached; `unknown`: the stage can't tell."""
    workload: Workload | None


@dataclass
class RunForecast:
    """The forecast of a run: its stages in order."""

    rows: dict[str, ForecastRow] = field(default_factory=dict)

    def add(self, name: str, status: Status, workload: Workload | None) -> None:
        """Add a stage, or what a further round adds to it."""
        first = self.rows.get(name)
        if first is not None and first.workload is not None and workload is not None:
            status = first.status if workload.requests.high == 0 and workload.flops == Workload().flops else status
            workload = first.workload + workload
        self.rows[name] = ForecastRow(name, status, workload)

    @property
    def workloads(self) -> dict[str, Workload]:
        """The workloads of the stages that can tell."""
        return {row.stage: row.workload for row in self.rows.values() if row.workload is not None}

    @property
    def total(self) -> Workload:
        return sum(self.workloads.values(), Workload())

    def usd(self) -> Range | None:
        """Dollars in all; None if a price is unknown."""
        return add_known([workload.usd() for workload in self.workloads.values()])

    def batch_usd(self) -> Range | None:
        """Dollars in all with batch APIs wherever there is one; None if there is none."""
        if not any(workload.batch_usd() for workload in self.workloads.values()):
            return None
        return add_known([workload.batch_usd() or workload.usd() for workload in self.workloads.values()])

    def plain(self) -> dict[str, Any]:
        """New requests by stage: ranges, the ledger's role, and the source of the figures."""
        return {name: plain(workload) for name, workload in self.workloads.items() if workload.endpoint}


def plain(workload: Workload) -> dict[str, Any]:
    usd = workload.usd()
    return {
        "role": workload.role,
        "requests": workload.requests.plain(),
        "input_tokens": workload.input_tokens.plain(),
        "output_tokens": workload.output_tokens.plain(),
        "usd": usd and usd.plain(),
        "basis": workload.basis,
    }


class RunForecaster:
    """Forecasts a run from the content of a store. It sends no request and writes nothing."""

    def __init__(self, store: Store, keys: Keys, calls: ReplyCache | None, **known: Any) -> None:
        """`calls` is None if no reply was ever stored. `known` are fields of `ForecastState`: `latency`, `limit`."""
        self._initial = known
        self._store = store
        self._run_keys = keys
        self._calls = calls
        self._keys: dict[str, str | None] = {}
        self._unread: list[tuple[Entry, Stage, str]] = []
        """Finished stages, which are loaded only if a later stage isn't finished."""

    def run(
        self, pipeline: Mapping[str, Stage], state: PipelineState, *, rounds: int = 1, stop_after: str | None = None
    ) -> RunForecast:
        """Forecast every stage up to `stop_after`."""
        forecast = RunForecast()
        made = [entry.manifest for entry in self._store.entries()]
        known = {"parameters": model_parameters(state.base), **self._initial}
        before = ForecastState(state, self._calls, made, self._keys, **known)
        for number in range(rounds):
            if number:
                self._keys["base"] = self._keys.get("trained")
            for name, stage in pipeline.items():
                if stage.stored:
                    before = self._forecast_stage(name, stage, before, forecast)
                if name == stop_after:
                    return forecast
        return forecast

    def _forecast_stage(self, name: str, stage: Stage, before: ForecastState, forecast: RunForecast) -> ForecastState:
        key = self._stage_key(stage, before.state)
        entry = self._store.find(stage.name, key) if key else None
        similar = entry or self._entry_for_other_test_set(stage)
        unmade = dict.fromkeys(stage.outputs, None if stage.key_by_output else key)
        self._keys.update(output_keys(stage, similar.manifest) if similar else unmade)
        if entry is not None:
            forecast.add(name, "stored", Workload())
            self._unread.append((entry, stage, name))
            return before
        while self._unread:
            before = load_stored(*self._unread.pop(0), before)
        expected = stage.forecast(before) if isinstance(stage, ForecastsWorkload) else before.forecast()
        workload = expected.workload
        status: Status = "unknown" if workload is None else "begun" if workload.cached.completions else "new"
        forecast.add(name, status, workload)
        return load_stored(similar, stage, name, expected.after) if similar else expected.after

    def _entry_for_other_test_set(self, stage: Stage) -> Entry | None:
        """An entry that differs in the test set only, of a stage keyed by its output, which is probably the same."""
        if not stage.key_by_output:
            return None
        same = {stage.storage_name(need): self._keys.get(need) for need in stage.inputs if need != "test"}
        parts = stage.parts()
        for entry in reversed(self._store.entries(stage.name)):
            parents = {need: key for need, key in entry.manifest.parents.items() if need != "test"}
            if entry.manifest.parts == parts and parents == same:
                return self._store.find(stage.name, entry.manifest.key)
        return None

    def _stage_key(self, stage: Stage, state: PipelineState) -> str | None:
        """None if it isn't known before a model is made."""
        parents = {stage.storage_name(need): self._input_key(need, state) for need in stage.inputs}
        known = {need: key for need, key in parents.items() if key is not None}
        return stage.key(known) if len(known) == len(parents) else None

    def _input_key(self, need: str, state: PipelineState) -> str | None:
        if need not in self._keys:
            made = need != "base" or state.base is None or state.base.is_made()
            self._keys[need] = self._run_keys[need] if made else None
        return self._keys[need]


def load_stored(entry: Entry, stage: Stage, name: str, before: ForecastState) -> ForecastState:
    """The state after a finished stage."""
    state = load(entry, stage, before.state, name)
    changes: dict[str, Any] = {"state": state}
    if "samples" in stage.outputs:
        changes |= {"samples": Range.of(len(state.samples)), "whole": True}
    if "selected" in stage.outputs:
        changes["selected"] = Range.of(len(state.selected))
    return replace(before, **changes)


def model_parameters(model: Model | None) -> float | None:
    """Size in billions: as configured, or computed from the `config.json` of the model's folder; None if unknown."""
    if model is None:
        return None
    if model.parameters is not None:
        return model.parameters
    if not model.is_made() or not (path := model.locate().path) or not (Path(path) / "config.json").is_file():
        return None
    shapes = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    try:
        return count_parameters(shapes) / 1e9
    except KeyError:  # not one of the usual decoder architectures
        return None
