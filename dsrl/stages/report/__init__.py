"""One self-contained HTML page about a run: its result, how it came about, what it cost, and every row behind it."""

from dsrl.stages.report.report import Report

__all__ = ["Report"]
