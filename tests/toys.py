"""A small pipeline of real stages that do almost nothing and record that they ran."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from dsrl.core.component import component
from dsrl.data.evaluation import Estimate, Evaluation
from dsrl.data.model import Model
from dsrl.data.sample import Passage, Rate, Rejected, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.llm.ledger.spending import Spending
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.context import Context
from dsrl.pipeline.progress.progress import Progress
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Store

made: list[str] = []
"""Names of the stages that ran (were not reused), in order. Call `clear()` between runs."""


@component("tests.toys.Fetch")
class Fetch(Stage):
    name: ClassVar[str] = "fetch"
    inputs = ("definition",)
    outputs = ("passages", "keywords")

    seed: int = 0

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append("fetch")
        passage = Passage(id=f"p{self.seed}", text="sea", source="atlas", offset=3, keyword="water", rank=0, score=0.5)
        return state.add(passages=(passage,), keywords=("water",), figures={"rows": {"in": 2, "out": 1}})


@component("tests.toys.Write")
class Write(Stage):
    name: ClassVar[str] = "write"
    inputs = ("definition", "passages")
    outputs = ("samples",)
    templates: ClassVar[tuple[str, ...]] = ("generate",)
    excluded_from_key: ClassVar[frozenset[str]] = frozenset({"hands", "misses"})

    count: int = 4
    hands: int = 1
    fails: bool = False
    misses: int = 0
    """Number of attempts with a missing reply."""

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append("write")
        if self.fails:
            raise RuntimeError("out of ink")
        if made.count("write") <= self.misses:
            context.ledger.add((context.stage, "teacher", "t"), Spending(errors=1, lost=1))
        samples = tuple(new_sample(state.task.name, f"{i} + 1?", str(i + 1), "initial") for i in range(self.count))
        rejected = tuple(Rejected(stage="write", reason="duplicate", input=f"{i}") for i in range(2))
        figures = {"rows": {"in": self.count + 2, "out": self.count}, "ink": 0.5}
        return state.add(samples=samples, rejected=rejected, figures=figures)


@component("tests.toys.Rank")
class Rank(Stage):
    name: ClassVar[str] = "rank"
    inputs = ("samples", "base", "format")
    outputs = ("samples", "score")

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append("rank")
        assert state.base is not None
        (context.scratch / "rollouts.txt").write_text(state.base.fingerprint())
        rate = Rate(
            model="m",
            num_rollouts=2,
            num_valid=2,
            num_correct=1,
            num_error=0,
            num_truncated=0,
            temperature=0.7,
            grader="g",
        )
        return state.add(samples=tuple(sample.replace(score=rate) for sample in state.samples), figures={"mean": 0.5})


@component("tests.toys.Choose")
class Choose(Stage):
    name: ClassVar[str] = "choose"
    inputs = ("samples", "score")
    outputs = ("selected", "control")

    m: int = 2

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append("choose")
        ids = tuple(sample.id for sample in state.samples)
        return state.add(selected=ids[: self.m], control=ids[-self.m :])


@component("tests.toys.Learn")
class Learn(Stage):
    name: ClassVar[str] = "learn"
    inputs = ("samples", "selected", "base")
    outputs = ("trained",)

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append("learn")
        assert state.base is not None
        assert state.base.path is not None
        age = json.loads((Path(state.base.path) / "config.json").read_text())["age"]
        write_model(context.scratch / "model", age + 1)
        return state.add(
            trained=replace(state.base, name=f"{state.base.name}+", path="model"), figures={"age": age + 1}
        )


@component("tests.toys.Measure")
class Measure(Stage):
    name: ClassVar[str] = "measure"

    of: str = "base"

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("format", "test", self.of)

    @property
    def outputs(self) -> tuple[str, ...]:
        return (f"evaluation_{self.of}",)

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append(f"measure {self.of}")
        model: Model = getattr(state, self.of)
        half = Estimate(value=0.5, low=0.0, high=1.0)
        found = Evaluation(
            name=model.name,
            model=model.fingerprint(),
            test="t",
            grader=state.task.answer.digest(),
            num_items=2,
            samples_per_item=1,
            temperature=0.7,
            top_p=1.0,
            max_tokens=32,
            pass_at_1=half,
            greedy=half,
            format_ok=half,
            format_free=half,
            truncated=half,
            num_errors=0,
            item_rates=(0.0, 1.0),
            item_greedy=(False, True),
        )
        return state.add(**{f"evaluation_{self.of}": found}, figures={"items": 2})


@component("tests.toys.Tell")
class Tell(Stage):
    name: ClassVar[str] = "tell"
    inputs = ()
    outputs = ()
    stored: ClassVar[bool] = False

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        made.append("tell")
        return state


def pipeline(**changed: Stage) -> dict[str, Stage]:
    """The whole pipeline, with `changed` stages replaced."""
    usual: dict[str, Stage] = {
        "fetch": Fetch(),
        "write": Write(),
        "rank": Rank(),
        "choose": Choose(),
        "learn": Learn(),
        "measure_base": Measure(),
        "measure_trained": Measure(of="trained"),
        "tell": Tell(),
    }
    assert set(changed) <= set(usual)
    return {**usual, **changed}


def write_model(folder: Path, age: int) -> Path:
    """Write a folder that stands in for a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"age": age}))
    return folder


def state(folder: Path, **task: Any) -> PipelineState:
    """The initial state of a run; the base model is in `folder`."""
    base = Model(name="b", path=str(write_model(folder / "base", 1)))
    return PipelineState(task=Task(**{"name": "sums", "instruction": "Add.", "answer": Number(), **task}), base=base)


def context(folder: Path) -> Context:
    """The context of a run with its store in `folder`."""
    store = Store(folder / "store")
    store.open()
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    return Context(
        run_dir=run_dir,
        store=store,
        reply_cache=ReplyCache(store.root / "calls"),
        progress=Progress(io.StringIO()),
        scratch=run_dir,
    )


def said(context: Context) -> str:
    """The run's progress output."""
    assert isinstance(context.progress.stream, io.StringIO)
    return context.progress.stream.getvalue()


def metrics(context: Context) -> Mapping[str, Any]:
    """`metrics.json` from disk."""
    values: dict[str, Any] = json.loads((context.run_dir / "metrics.json").read_text())
    return values
