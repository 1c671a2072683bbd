"""A pipeline that asks the quickstart's teacher, with a probe that needs no model, and the surroundings of its runs."""

from pathlib import Path
from typing import Any, ClassVar

import yaml

from dsrl.core.component import component
from dsrl.core.resources import home
from dsrl.data.sample import Rate
from dsrl.data.task import Task
from dsrl.forecast.run_forecast import Forecast, Foresight
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


@component("tests.trial.Guess")
class Guess(Stage):
    """Takes every sample for solved whose text has an even length."""

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
    """From passages to rewrites."""
    endpoint = offline(**teacher)
    verify = (MajorityVote(teacher=endpoint, votes=votes),)
    return {
        "retrieve": Retrieve(retriever=Embedded(corpora=("everyday",)), teacher=endpoint, num_passages=n, seed=seed),
        "generate": Generate(teacher=endpoint, n=n, verify=verify, seed=seed),
        "probe": Guess(),
        "rewrite": Rewrite(teacher=endpoint, verify=verify, seed=seed),
    }


def start() -> PipelineState:
    return PipelineState(task=TASK)


def surroundings(folder: Path) -> Context:
    folder.mkdir(exist_ok=True)
    return context(folder)


def ran(stages: dict[str, Stage], where: Context) -> PipelineState:
    """A whole run, its servers stopped at the end."""
    try:
        return run_stages(stages, start(), where)
    finally:
        where.close()


def foreseen(stages: dict[str, Stage], where: Context, **dials: Any) -> Forecast:
    state = start()
    calls = where.calls if where.calls.folder.is_dir() else None
    return Foresight(where.store, Keys(state), calls).look(stages, state, **dials)


def files(folder: Path) -> set[tuple[str, int]]:
    """What lies in a folder, with the time of its last change."""
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")}
