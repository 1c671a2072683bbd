"""The forecast as a table for a terminal."""

from collections.abc import Sequence

from dsrl.core.estimate import NOTHING, Range
from dsrl.forecast.run_forecast import Forecast, Row
from dsrl.forecast.settings import Plan
from dsrl.forecast.workload import Load

HEADS = ("stage", "", "requests", "tokens in", "tokens out", "dollars", "low - high", "by batch", "wait", "GPU-hours")
UNKNOWN = "unknown"
NONE = "-"
SMALL = 0.01
"""GPU-hours below which the number says nothing."""


def table(forecast: Forecast, plan: Plan) -> str:
    """One line a stage, one for the sum, and what the figures rest on."""
    rows = [_cells(row, plan) for row in forecast.rows.values()]
    total = _figures("total", "", forecast.total, forecast.usd(), forecast.batch_usd(), plan)
    lines = aligned([HEADS, *rows, total])
    lines.insert(len(lines) - 1, "-" * max(map(len, lines)))
    return "\n".join([*lines, "", *_notes(forecast, plan)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Words to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(row: Row, plan: Plan) -> tuple[str, ...]:
    if row.load is None:
        return (row.stage, row.state, *[NONE] * (len(HEADS) - 2))
    return _figures(row.stage, row.state, row.load, row.load.usd(), row.load.batch_usd(), plan)


def _figures(name: str, state: str, load: Load, usd: Range | None, batch: Range | None, plan: Plan) -> tuple[str, ...]:
    hours = None if load.flops is None else plan.gpu_hours(load.flops)
    return (
        name,
        state,
        count(load.requests),
        count(load.input_tokens),
        count(load.output_tokens),
        UNKNOWN if usd is None else dollars(usd.expected) if load.requests.high else NONE,
        f"{dollars(usd.low)} - {dollars(usd.high)}" if usd and load.requests.high else NONE,
        dollars(batch.expected) if batch and load.requests.high else NONE,
        waiting(load),
        gpu(hours),
    )


def _notes(forecast: Forecast, plan: Plan) -> list[str]:
    held = forecast.total.held
    loads = [(row.stage, row.load) for row in forecast.rows.values() if row.load is not None]
    bases = [f"{stage}: {load.basis}" for stage, load in loads if load.basis]
    unsaid = [row.stage for row in forecast.rows.values() if row.load is None]
    notes = [
        "New spend only; stages marked `stored` are used again and cost nothing.",
        f"Expected, and between low and high nine times in ten. From: {'; '.join(bases)}." if bases else "",
        f"In the store for unfinished stages: {held.completions:,} replies, {held.input_tokens:,} tokens in, "
        f"{held.output_tokens:,} out; not paid again."
        if held.completions
        else "",
        f"GPU-hours on {plan.gpu}, at {', '.join(f'{share:.0%}' for share in plan.utilization)} of its peak."
        if any(load.flops != NOTHING for _, load in loads)
        else "",
        f"No forecast for {', '.join(unsaid)}." if unsaid else "",
    ]
    return [note for note in notes if note]


def count(range_: Range) -> str:
    return NONE if not range_.high else f"{range_.expected:,.0f}"


def dollars(value: float) -> str:
    """Cents where they matter."""
    return "$0" if not value else f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}"


def gpu(hours: Range | None) -> str:
    """`2.5 (0.13 - 27)`."""
    if hours is None:
        return UNKNOWN
    if hours.high < SMALL:
        return figure(hours.high) if hours.high else NONE
    return f"{figure(hours.expected)} ({figure(hours.low)} - {figure(hours.high)})"


def figure(value: float) -> str:
    if value < SMALL:
        return f"<{SMALL:g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def waiting(load: Load) -> str:
    """Minutes or hours."""
    if load.seconds is None:
        return "up to a day"
    seconds = load.seconds.expected
    if not seconds:
        return NONE
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
