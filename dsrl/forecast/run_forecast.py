"""The walk through a pipeline that looks ahead: what is in the store, and what each other stage expects to ask for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dsrl.core.estimate import NOTHING, Range
from dsrl.data.model import Model, count_parameters
from dsrl.forecast.workload import Forecastable, Load, Outlook
from dsrl.llm import ReplyCache
from dsrl.pipeline.runner import Keys, load, output_keys
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Entry, Store

State = Literal["stored", "begun", "new", "unknown"]


@dataclass(frozen=True)
class Row:
    """One stage of the forecast."""

    stage: str
    state: State
    """`stored`: nothing is left to do; `begun`: some of its replies are paid for; `unknown`: it doesn't say."""
    load: Load | None


@dataclass
class Forecast:
    """The stages in their order."""

    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, name: str, state: State, load: Load | None) -> None:
        """A stage of a further round is added to that of the first."""
        before = self.rows.get(name)
        if before is not None and before.load is not None and load is not None:
            state = before.state if load.requests.high == 0 and load.flops == Load().flops else state
            load = before.load + load
        self.rows[name] = Row(name, state, load)

    @property
    def total(self) -> Load:
        """Of the stages that say what they need."""
        total = Load()
        for row in self.rows.values():
            total += row.load or Load()
        return total

    def usd(self) -> Range | None:
        """Dollars in all; None where a price is unknown."""
        return added([row.load.usd() for row in self.rows.values() if row.load is not None])

    def batch_usd(self) -> Range | None:
        """Dollars in all if whatever can went through batch APIs; None where nothing can."""
        loads = [row.load for row in self.rows.values() if row.load is not None]
        if not any(load.batch_usd() for load in loads):
            return None
        return added([load.batch_usd() or load.usd() for load in loads])

    def plain(self) -> dict[str, Any]:
        """As `metrics.json` has it."""
        return {row.stage: plain(row.load) for row in self.rows.values() if row.load is not None and row.load.endpoint}


def added(parts: Sequence[Range | None]) -> Range | None:
    """Unknown as soon as one part is."""
    known = [part for part in parts if part is not None]
    return sum(known, NOTHING) if len(known) == len(parts) else None


def plain(load: Load) -> dict[str, Any]:
    """New calls of one stage: ranges, the role that they are booked under, and what the figures come from."""
    usd = load.usd()
    return {
        "role": load.role,
        "requests": load.requests.plain(),
        "input_tokens": load.input_tokens.plain(),
        "output_tokens": load.output_tokens.plain(),
        "usd": usd and usd.plain(),
        "basis": load.basis,
    }


class Foresight:
    """Looks ahead from what stands in a store. It asks nobody and writes nothing."""

    def __init__(self, store: Store, keys: Keys, calls: ReplyCache | None, **known: Any) -> None:
        """`calls`: None where no reply was ever stored. `known`: fields of the outlook: `latency`, `limit`."""
        self._outlook = known
        self._store = store
        self._keys = keys
        self._calls = calls
        self._known: dict[str, str | None] = {}
        self._unread: list[tuple[Entry, Stage, str]] = []
        """Finished stages, read only once a stage that isn't finished has to know what they hold."""

    def look(
        self, pipeline: Mapping[str, Stage], state: PipelineState, *, rounds: int = 1, stop_after: str | None = None
    ) -> Forecast:
        """Every stage up to the last one wanted."""
        forecast = Forecast()
        made = [entry.manifest for entry in self._store.entries()]
        known = {"parameters": parameters(state.base), **self._outlook}
        outlook = Outlook(state, self._calls, made, self._known, **known)
        for number in range(rounds):
            if number:
                self._known["base"] = self._known.get("trained")
            for name, stage in pipeline.items():
                if stage.stored:
                    outlook = self._step(name, stage, outlook, forecast)
                if name == stop_after:
                    return forecast
        return forecast

    def _step(self, name: str, stage: Stage, outlook: Outlook, forecast: Forecast) -> Outlook:
        key = self._key(stage, outlook.state)
        entry = self._store.find(stage.name, key) if key else None
        before = entry or self._before(stage)
        unmade = dict.fromkeys(stage.outputs, None if stage.key_by_output else key)
        self._known.update(output_keys(stage, before.manifest) if before else unmade)
        if entry is not None:
            forecast.add(name, "stored", Load())
            self._unread.append((entry, stage, name))
            return outlook
        while self._unread:
            outlook = stored(*self._unread.pop(0), outlook)
        expected = stage.expect(outlook) if isinstance(stage, Forecastable) else outlook.expects()
        load = expected.load
        state: State = "unknown" if load is None else "begun" if load.held.completions else "new"
        forecast.add(name, state, load)
        return stored(before, stage, name, expected.after) if before else expected.after

    def _before(self, stage: Stage) -> Entry | None:
        """What a stage left when the test set was another one, where others go by its content: probably the same."""
        if not stage.key_by_output:
            return None
        same = {stage.storage_name(need): self._known.get(need) for need in stage.inputs if need != "test"}
        parts = stage.parts()
        for entry in reversed(self._store.entries(stage.name)):
            parents = {need: key for need, key in entry.manifest.parents.items() if need != "test"}
            if entry.manifest.parts == parts and parents == same:
                return self._store.find(stage.name, entry.manifest.key)
        return None

    def _key(self, stage: Stage, state: PipelineState) -> str | None:
        """None where it can't be known without making a model first."""
        parents = {stage.storage_name(need): self._of(need, state) for need in stage.inputs}
        known = {need: key for need, key in parents.items() if key is not None}
        return stage.key(known) if len(known) == len(parents) else None

    def _of(self, need: str, state: PipelineState) -> str | None:
        if need not in self._known:
            made = need != "base" or state.base is None or state.base.is_made()
            self._known[need] = self._keys[need] if made else None
        return self._known[need]


def stored(entry: Entry, stage: Stage, name: str, outlook: Outlook) -> Outlook:
    """What a finished stage leaves behind is known."""
    state = load(entry, stage, outlook.state, name)
    changes: dict[str, Any] = {"state": state}
    if "samples" in stage.outputs:
        changes |= {"samples": Range.of(len(state.samples)), "whole": True}
    if "selected" in stage.outputs:
        changes["selected"] = Range.of(len(state.selected))
    return replace(outlook, **changes)


def parameters(model: Model | None) -> float | None:
    """Billions: as the config says, else reckoned from the shapes in the model's folder, else unknown."""
    if model is None:
        return None
    if model.parameters is not None:
        return model.parameters
    if not model.is_made() or not (path := model.locate().path) or not (Path(path) / "config.json").is_file():
        return None
    shapes = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    try:
        return count_parameters(shapes) / 1e9
    except KeyError:  # another family of models than the usual decoders
        return None
