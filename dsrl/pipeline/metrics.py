"""`metrics.json` of a run: what each finished stage adds to it. docs/metrics.md lists the fields."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dsrl.data.sample import Rejected
from dsrl.pipeline import cost
from dsrl.pipeline.context import Context
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Manifest

PER_ROUND = ("keys", "seconds", "reused", "rows", "stages", "calls_by_stage", "cost")
"""Fields that start anew with each round."""


def begin_round(context: Context, number: int) -> None:
    """Start the fields of this round. Those of finished rounds move to `rounds`; the latest round is at the top."""
    metrics = context.metrics
    if number > 1:
        metrics.setdefault("rounds", []).append({key: metrics[key] for key in PER_ROUND})
    for key in PER_ROUND:
        metrics[key] = {}


def record_stage(
    context: Context,
    name: str,
    stage: Stage,
    state: PipelineState,
    *,
    seconds: float,
    rejected: tuple[Rejected, ...] = (),
    manifest: Manifest | None = None,
    reused: bool = False,
) -> None:
    """Add a finished stage to `metrics.json` and print its line. `rejected` are the candidates that this stage
    rejected; `manifest` is that of its store entry, None for a stage whose result is not stored."""
    metrics = context.metrics
    metrics["seconds"][name] = round(seconds, 2)
    metrics["stages"][name] = state.figures
    for block, values in stage.summary_metrics(name, state).items():
        metrics[block] = {**metrics.get(block, {}), **values}
    rows = count_rows(state.figures, rejected)
    if manifest is not None:
        metrics["keys"][name] = manifest.key
        metrics["reused"][name] = reused
        if "rows" in state.figures or rejected:
            metrics["rows"][name] = rows
        cost.book(metrics, name, context.ledger.of(name), manifest.calls)
        metrics["per_sample"] = cost.per_sample(metrics, len(state.samples))
    metrics["calls"] = context.ledger.totals()
    context.write_metrics()
    flow = f"{rows['in']:>6} -> {rows['out']:<6}" if "in" in rows and "out" in rows else " " * 16
    how = "stored" if reused else f"{seconds:.1f} s"
    context.progress.say(f"{name:<17}{flow} {how:>8}  {describe(state.figures, rejected)}".rstrip())


def count_rows(figures: Mapping[str, Any], rejected: tuple[Rejected, ...]) -> dict[str, Any]:
    """Rows in, rows out, and why the rest was rejected."""
    reasons = Counter(candidate.reason for candidate in rejected)
    return {**figures.get("rows", {}), "rejected": dict(reasons.most_common())}


def describe(figures: Mapping[str, Any], rejected: tuple[Rejected, ...]) -> str:
    """A stage's line: its first five scalar figures, then the three most frequent reasons for rejection."""
    scalars = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
        if isinstance(value, (int, float, str))
    ]
    reasons = Counter(candidate.reason for candidate in rejected).most_common(3)
    return "  ".join(scalars[:5] + [f"{count} x {reason}" for reason, count in reasons])
