"""`dsrl plan`: compose and build as a run does, then print a forecast; with `pilot=N` make N samples first."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.disk_space import check_room
from dsrl.core.errors import UserError
from dsrl.data.sample import Sample
from dsrl.forecast.estimate import Range
from dsrl.forecast.pilot import Pilot, PilotResult
from dsrl.forecast.run_forecast import RunForecast, RunForecaster, plain
from dsrl.forecast.settings import Plan
from dsrl.forecast.table import dollars, table
from dsrl.pipeline.metrics import begin_round
from dsrl.pipeline.runner import Keys
from dsrl.pipeline.store import Store, write_json

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dsrl.llm.reply_cache.cache import ReplyCache
    from dsrl.pipeline.config import Settings
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.stage import Stage
    from dsrl.pipeline.state import PipelineState

SHOWN = 5
"""Samples of a pilot that are printed."""
WIDTH = 100


def plan_run(config: "DictConfig") -> RunForecast:
    """Print the forecast. Without a pilot no request is sent, and nothing is written except `plan.out`."""
    from hydra.core.hydra_config import HydraConfig

    from dsrl.llm.price import price_warning
    from dsrl.pipeline import config as checked
    from dsrl.pipeline.experiment import build_pipeline

    if config.get("checkpoints") is not None:
        raise UserError(
            "`dsrl plan` plans one model", got=f"checkpoints={config.checkpoints}", next_step="remove checkpoints="
        )
    values = checked.resolve(config)
    dials = checked.settings_of(values)
    checked.check_overrides(values, HydraConfig.get().overrides.task)
    settings = checked.build(values["plan"], "plan", dials.plugins)
    settings.check_out()
    pipeline, state = build_pipeline(values, dials, dry=not dials.pilot)
    store, keys = Store(Path(dials.store).expanduser().absolute()), Keys(state)
    pilot = None
    if dials.pilot:
        pilot = _run_pilot(pipeline, state, store, keys, dials, Path(HydraConfig.get().runtime.output_dir))
    forecaster = RunForecaster(store, keys, existing_cache(store), latency=pilot.latency if pilot else None)
    forecast = forecaster.run(pipeline, state, rounds=dials.rounds, stop_after=dials.stop_after)
    if warning := price_warning(values["pipeline"], dials.prices):
        print(f"\nWARNING {warning}")
    print(f"\n{table(forecast, settings)}")
    _warn_about_budgets(forecast, dials)
    if settings.out is not None:
        write_json(Path(settings.out).expanduser(), as_json(forecast, settings))
    return forecast


def existing_cache(store: Store) -> "ReplyCache | None":
    """The reply cache, or None if there is none: a forecast creates no folder."""
    from dsrl.llm.reply_cache.cache import ReplyCache

    folder = store.root / "calls"
    return ReplyCache(folder) if folder.is_dir() else None


def _run_pilot(
    pipeline: "dict[str, Stage]", state: "PipelineState", store: Store, keys: Keys, dials: "Settings", folder: Path
) -> PilotResult:
    """Run the pilot; print its samples and what it cost."""
    from dsrl.llm.ledger.ledger import Ledger
    from dsrl.llm.reply_cache.cache import ReplyCache
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.progress.log_bridge import forward_logs
    from dsrl.pipeline.progress.progress import Progress
    from dsrl.pipeline.run_folder import print_spending

    store.open()
    check_room(store.root)
    context = Context(
        run_dir=folder,
        store=store,
        reply_cache=ReplyCache(store.root / "calls"),
        progress=Progress(),
        ledger=Ledger(dials.budget_usd, dials.budget_tokens),
    )
    begin_round(context, 1)
    pilot = None
    try:
        with forward_logs(context.progress):
            pilot = Pilot(dials.pilot, keys, context).run(pipeline, state, dials.stop_after)
    finally:
        if pilot is None:
            print_spending(context)
        context.close()
    _print_samples(pilot.samples, context)
    return pilot


def _print_samples(samples: Sequence[Sample], context: "Context") -> None:
    for sample in samples[:SHOWN]:
        print(f"\n{sample.origin}, answer {sample.answer}{_agreement(sample)}")
        print(textwrap.fill(sample.input, WIDTH, initial_indent="  ", subsequent_indent="  "))
    spent = context.ledger.sums()
    cost = "dollars unknown" if spent.usd is None else dollars(spent.usd)
    print(
        f"\npilot: {len(samples)} samples, {spent.requests:,} requests, {spent.input_tokens:,} tokens in, "
        f"{spent.output_tokens:,} out, {cost}; {spent.store_hits:,} replies were cached before"
    )


def _agreement(sample: Sample) -> str:
    votes = sample.votes
    return f", {'at least ' if votes.censored else ''}{votes.share:.0%} of {votes.planned} votes" if votes else ""


def _warn_about_budgets(forecast: RunForecast, dials: "Settings") -> None:
    tokens = forecast.total.input_tokens + forecast.total.output_tokens
    _warn_about_budget("budget_usd", dials.budget_usd, forecast.usd(), dollars)
    _warn_about_budget("budget_tokens", dials.budget_tokens, tokens, "{:,.0f} tokens".format)


def _warn_about_budget(dial: str, budget: float | None, needed: Range | None, format_: Callable[[float], str]) -> None:
    if budget is not None and needed is not None and needed.high > budget:
        verb = "will not" if needed.low > budget else "may not"
        print(f"{dial}={budget:.10g} {verb} be enough: {format_(needed.low)} to {format_(needed.high)}.")


def as_json(forecast: RunForecast, settings: Plan) -> dict[str, Any]:
    """The content of `plan.out`: every stage with its ranges."""
    stages = {}
    for row in forecast.rows.values():
        workload = row.workload
        hours = None if workload is None or workload.flops is None else settings.gpu_hours(workload.flops)
        stages[row.stage] = {
            "state": row.status,
            **(plain(workload) if workload else {}),
            "gpu_hours": None if hours is None else hours.plain(),
            "held": {"completions": workload.cached.completions if workload else 0},
        }
    total = forecast.usd()
    return {"stages": stages, "usd": total and total.plain(), "gpu": settings.gpu}
