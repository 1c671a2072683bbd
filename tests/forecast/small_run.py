"""A small pipeline with the offline teacher and a probe that needs no model, and functions to run it."""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from dsrl.core.component import component
from dsrl.core.resources import home
from dsrl.data.sample import Rate
from dsrl.data.task import Task
from dsrl.forecast.run_forecast import RunForecast, RunForecaster
from dsrl.llm import Endpoint, Price
from dsrl.pipeline.config import build
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import Keys, run_stages
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.quickstart import OfflineTeacher
from dsrl.stages.generate import Generate, MajorityVote
from dsrl.stages.retrieve import Embedded, Retrieve
from dsrl.stages.rewrite import Rewrite
from tests.toys import context

TASK: Task = build(yaml.safe_load((home() / "conf" / "task" / "quickstart.yaml").read_text(encoding="utf-8")), "task")
PRICE = Price(input=1.0, output=4.0, date="2026-11-20")


@component("tests.small_run.Guess")
class Guess(Stage):
    """Counts samples of odd length as solved."""

    name: ClassVar[str] = "probe"
    inputs = ("samples",)
    outputs = ("samples", "probe")

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        return state.add(samples=tuple(sample.replace(probe=rate(len(sample.input))) for sample in state.samples))


def rate(number: int) -> Rate:
    counts = {"num_rollouts": 1, "num_valid": 1, "num_correct": number % 2, "num_error": 0, "num_truncated": 0}
    return Rate(model="m", temperature=0.0, grader="g", **counts)


def offline(**fields: Any) -> Endpoint:
    server = OfflineTeacher(busy=0.0)
    return Endpoint(model="offline-rules-v1", server=server, **{"concurrency": 8, "backoff": 0.0, **fields})


def pipeline(n: int = 40, votes: int = 5, seed: int = 0, **teacher: Any) -> dict[str, Stage]:
    """The stages from passages to rewrites."""
    endpoint = offline(**teacher)
    verify = (MajorityVote(teacher=endpoint, votes=votes),)
    return {
        "retrieve": Retrieve(retriever=Embedded(corpora=("everyday",)), teacher=endpoint, num_passages=n, seed=seed),
        "generate": Generate(teacher=endpoint, n=n, verify=verify, seed=seed),
        "probe": Guess(),
        "rewrite": Rewrite(teacher=endpoint, verify=verify, seed=seed),
    }


def initial_state() -> PipelineState:
    return PipelineState(task=TASK)


def make_context(folder: Path) -> Context:
    folder.mkdir(exist_ok=True)
    return context(folder)


def run_pipeline(stages: dict[str, Stage], where: Context) -> PipelineState:
    """Run the stages, and stop their servers."""
    try:
        return run_stages(stages, initial_state(), where)
    finally:
        where.close()


def forecast_run(stages: dict[str, Stage], where: Context, **dials: Any) -> RunForecast:
    state = initial_state()
    calls = where.reply_cache if where.reply_cache.folder.is_dir() else None
    return RunForecaster(where.store, Keys(state), calls).run(stages, state, **dials)


def files(folder: Path) -> set[tuple[str, int]]:
    """Paths below a folder with their modification times."""
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")}
