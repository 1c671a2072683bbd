"""The forecast as a table for a terminal."""

from dsrl.forecast.estimate import NOTHING, Range
from dsrl.forecast.run_forecast import RunForecast
from dsrl.forecast.settings import Plan
from dsrl.forecast.workload import Workload

HEADS = ("stage", "", "requests", "tokens in", "tokens out", "dollars", "low - high", "by batch", "wait", "GPU-hours")
UNKNOWN = "unknown"
NONE = "-"
SMALL = 0.01
"""GPU-hours below this are printed as `<0.01`."""


def table(forecast: RunForecast, plan: Plan) -> str:
    """One line per stage, a total, and the sources of the figures."""
    rows = [
        (row.stage, row.status, *_figures(row.workload, row.workload.usd(), row.workload.batch_usd(), plan))
        if row.workload
        else (row.stage, row.status, *[NONE] * (len(HEADS) - 2))
        for row in forecast.rows.values()
    ]
    total = ("total", "", *_figures(forecast.total, forecast.usd(), forecast.batch_usd(), plan))
    columns = [*zip(HEADS, *rows, total, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (HEADS, *rows, total)
    ]
    lines.insert(len(lines) - 1, "-" * max(map(len, lines)))
    return "\n".join([*lines, "", *_notes(forecast, plan)])


def _figures(workload: Workload, usd: Range | None, batch: Range | None, plan: Plan) -> tuple[str, ...]:
    hours = None if workload.flops is None else plan.gpu_hours(workload.flops)
    return (
        count(workload.requests),
        count(workload.input_tokens),
        count(workload.output_tokens),
        UNKNOWN if usd is None else dollars(usd.expected) if workload.requests.high else NONE,
        f"{dollars(usd.low)} - {dollars(usd.high)}" if usd and workload.requests.high else NONE,
        dollars(batch.expected) if batch and workload.requests.high else NONE,
        waiting(workload),
        gpu_hours(hours),
    )


def _notes(forecast: RunForecast, plan: Plan) -> list[str]:
    cached = forecast.total.cached
    bases = [f"{stage}: {workload.basis}" for stage, workload in forecast.workloads.items() if workload.basis]
    unknown = [row.stage for row in forecast.rows.values() if row.workload is None]
    notes = [
        "New spending only; stages marked `stored` are reused and cost nothing.",
        f"Expected values, and 90 % intervals from low to high. Sources: {'; '.join(bases)}." if bases else "",
        f"In the reply cache for unfinished stages: {cached.completions:,} replies, {cached.input_tokens:,} tokens in, "
        f"{cached.output_tokens:,} out; not paid for again."
        if cached.completions
        else "",
        f"GPU-hours on {plan.gpu}, at {', '.join(f'{share:.0%}' for share in plan.utilization)} of its peak."
        if any(workload.flops != NOTHING for workload in forecast.workloads.values())
        else "",
        f"No forecast for {', '.join(unknown)}." if unknown else "",
    ]
    return [note for note in notes if note]


def count(range_: Range) -> str:
    return NONE if not range_.high else f"{range_.expected:,.0f}"


def dollars(value: float) -> str:
    """In cents, or with two significant digits below ten cents."""
    return "$0" if not value else f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}"


def gpu_hours(hours: Range | None) -> str:
    """For example `2.5 (0.13 - 27)`."""
    if hours is None:
        return UNKNOWN
    if hours.high < SMALL:
        return figure(hours.high) if hours.high else NONE
    return f"{figure(hours.expected)} ({figure(hours.low)} - {figure(hours.high)})"


def figure(value: float) -> str:
    if value < SMALL:
        return f"<{SMALL:g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def waiting(workload: Workload) -> str:
    """In seconds, minutes or hours."""
    if workload.seconds is None:
        return "up to a day"
    seconds = workload.seconds.expected
    if not seconds:
        return NONE
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
