"""Ten real samples before five hundred: the first candidates of the very run that is planned, so that their replies
wait in the store for it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dsrl.core.errors import BudgetReached, UserError
from dsrl.core.estimate import mean
from dsrl.data.model import Model
from dsrl.data.sample import Rate, Sample
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.config import components_in
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import Keys, load, output_keys, run_stage
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Entry

MOST_BILLIONS_ON_CPU = 1.0
"""Of the parameters of a base model that is tried out without a GPU."""


@dataclass(frozen=True)
class Pilot:
    """What came of it."""

    samples: tuple[Sample, ...]
    latency: float | None
    """Seconds that a request took, as far as that can be told from so few."""


class Trial:
    """The stages that ask the teacher, and those between them, on a few samples."""

    def __init__(self, count: int, keys: Keys, context: Context) -> None:
        self.count, self.keys, self.context = count, keys, context
        self.cut = False
        """Whether the samples are only a part of those of the whole run: then nothing is stored but replies."""
        self.latencies: list[float] = []

    def run(self, pipeline: Mapping[str, Stage], state: PipelineState, stop_after: str | None) -> Pilot:
        """Raises what a run would raise; replies that came are kept."""
        asking = [name for name, stage in pipeline.items() if stage.prompted_endpoint]
        names = list(pipeline)[: list(pipeline).index(asking[-1]) + 1] if asking else []
        for name in names:
            state = self._step(name, pipeline[name], state)
            if name == stop_after:
                break
        return Pilot(state.samples, mean(self.latencies).expected if self.latencies else None)

    def _step(self, name: str, stage: Stage, state: PipelineState) -> PipelineState:
        small = stage.pilot(self.count)
        if small is stage and not self.cut:
            state = run_stage(name, stage, state, self.keys, self.context)
        elif not self.cut and (entry := self._stored(stage)) is not None:
            self.keys.update(output_keys(stage, entry.manifest))
            state = load(entry, stage, state, name)
        else:
            state = self._apart(name, small, state)
        if "samples" in stage.outputs and not self.cut:
            self.cut = True
            state = replace(state, samples=state.samples[: self.count])
        return state

    def _stored(self, stage: Stage) -> Entry | None:
        """The whole stage, if it is in the store."""
        key = stage.key(self.keys.parents(stage))
        return self.context.store.find(stage.name, key)

    def _apart(self, name: str, stage: Stage, state: PipelineState) -> PipelineState:
        """The stage on these few samples; only the replies of endpoints outlive it."""
        with TemporaryDirectory() as folder:
            self.context.begin(name)
            self.context.scratch = self.context.work = Path(folder)
            if not any(part.needs_weights for part in components_in(stage)):
                return self._timed(stage, state)
            # Which replies of a local model share a batch decides about their last digits, so the run draws its own.
            context = replace(self.context, calls=ReplyCache(Path(folder) / "calls"))
            return self._measured(name, stage, state, context)

    def _timed(self, stage: Stage, state: PipelineState) -> PipelineState:
        """Notes how long a request took, the others in flight beside it."""
        ledger, name, started = self.context.ledger, self.context.stage, time.monotonic()
        after = stage(state, self.context)
        requests = ledger.sums(name).requests
        if stage.prompted_endpoint and requests >= self.count:
            at_once = min(self.count, stage.prompted_endpoint.concurrency)
            self.latencies.append((time.monotonic() - started) * at_once / requests)
        return after

    def _measured(self, name: str, stage: Stage, state: PipelineState, context: Context) -> PipelineState:
        """Where the base model can't be run here, half of the samples are taken to be solved."""
        reason = too_large(state.base)
        try:
            if reason is None:
                return stage(state, context)
        except BudgetReached:
            raise
        except UserError as error:
            reason = str(error).splitlines()[0]
        context.progress.warn(f"plan: {name} can't run here ({reason}); every other sample is taken for solved")
        samples = [sample.replace(probe=guess(number % 2)) for number, sample in enumerate(state.samples)]
        return state.add(samples=tuple(samples))


def too_large(model: Model | None) -> str | None:
    """Why a model is not even tried on this machine."""
    from dsrl.forecast.run_forecast import parameters

    billions = parameters(model)
    if has_gpu() or (model is not None and not model.is_made()):
        return None
    if billions is None or billions > MOST_BILLIONS_ON_CPU:
        return "the base model is large or of unknown size, and there is no GPU"
    return None


def has_gpu() -> bool:
    """Told without the seconds that importing torch takes."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def guess(solved: int) -> Rate:
    """The probe of a sample that was not probed."""
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
