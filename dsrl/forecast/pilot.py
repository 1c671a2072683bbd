"""A pilot: the first candidates of the planned run, made for real. Their replies stay in the cache for the run."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dsrl.core.errors import BudgetReached, UserError
from dsrl.data.model import Model
from dsrl.data.sample import Rate, Sample
from dsrl.forecast.estimate import mean
from dsrl.forecast.run_forecast import model_parameters
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.config import components_in
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import Keys, load, output_keys, run_stage
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState

MAX_BILLIONS_ON_CPU = 1.0
"""Largest base model, in billions of parameters, that a pilot runs without a GPU."""


@dataclass(frozen=True)
class PilotResult:
    samples: tuple[Sample, ...]
    latency: float | None
    """Mean seconds per request; None if too few were sent."""


class Pilot:
    """Runs the stages that send requests to a teacher, and those between them, for `count` samples."""

    def __init__(self, count: int, keys: Keys, context: Context) -> None:
        self.count, self.keys, self.context = count, keys, context
        self.partial = False
        """Whether the samples are only some of the run's: from then on only replies are stored."""
        self.latencies: list[float] = []

    def run(self, pipeline: Mapping[str, Stage], state: PipelineState, stop_after: str | None) -> PilotResult:
        """Raises what a run would raise; replies that arrived are kept."""
        asking = [name for name, stage in pipeline.items() if stage.prompted_endpoint]
        names = list(pipeline)[: list(pipeline).index(asking[-1]) + 1] if asking else []
        for name in names:
            state = self._run_stage(name, pipeline[name], state)
            if name == stop_after:
                break
        return PilotResult(state.samples, mean(self.latencies).expected if self.latencies else None)

    def _run_stage(self, name: str, stage: Stage, state: PipelineState) -> PipelineState:
        small = stage.pilot(self.count)
        stored = None if self.partial else self.context.store.find(stage.name, stage.key(self.keys.parents(stage)))
        if small is stage and not self.partial:
            state = run_stage(name, stage, state, self.keys, self.context)
        elif stored is not None:
            self.keys.update(output_keys(stage, stored.manifest))
            state = load(stored, stage, state, name)
        else:
            state = self._run_small(name, small, state)
        if "samples" in stage.outputs and not self.partial:
            self.partial = True
            state = replace(state, samples=state.samples[: self.count])
        return state

    def _run_small(self, name: str, stage: Stage, state: PipelineState) -> PipelineState:
        """Run a stage on few samples in a temporary folder; only replies of endpoints are kept."""
        with TemporaryDirectory() as folder:
            self.context.begin(name)
            self.context.scratch = self.context.work = Path(folder)
            if not any(part.needs_weights for part in components_in(stage)):
                return self._run_timed(stage, state)
            # The last digits of a local model's replies depend on their batch, so the run samples its own.
            context = replace(self.context, reply_cache=ReplyCache(Path(folder) / "calls"))
            return self._run_base_model(name, stage, state, context)

    def _run_timed(self, stage: Stage, state: PipelineState) -> PipelineState:
        ledger, name, started = self.context.ledger, self.context.stage, time.monotonic()
        after = stage(state, self.context)
        requests = ledger.sums(name).requests
        if stage.prompted_endpoint and requests >= self.count:
            in_flight = min(self.count, stage.prompted_endpoint.concurrency)
            self.latencies.append((time.monotonic() - started) * in_flight / requests)
        return after

    def _run_base_model(self, name: str, stage: Stage, state: PipelineState, context: Context) -> PipelineState:
        """Run a stage with the base model; if that's impossible here, count every other sample as solved."""
        reason = too_large(state.base)
        try:
            if reason is None:
                return stage(state, context)
        except BudgetReached:
            raise
        except UserError as error:
            reason = str(error).splitlines()[0]
        context.progress.warn(f"plan: {name} can't run here ({reason}); every other sample counts as solved")
        samples = [sample.replace(probe=assumed_probe(number % 2)) for number, sample in enumerate(state.samples)]
        return state.add(samples=tuple(samples))


def too_large(model: Model | None) -> str | None:
    """Why a model shouldn't be run on this machine; None if it can be."""
    billions = model_parameters(model)
    if has_gpu() or (model is not None and not model.is_made()):
        return None
    if billions is None or billions > MAX_BILLIONS_ON_CPU:
        return "the base model is large or of unknown size, and there is no GPU"
    return None


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU, without the seconds that importing torch takes."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def assumed_probe(solved: int) -> Rate:
    return Rate(
        model="",
        num_rollouts=1,
        num_valid=1,
        num_correct=solved,
        num_error=0,
        num_truncated=0,
        temperature=0.0,
        grader="",
    )
