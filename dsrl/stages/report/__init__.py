"""One self-contained HTML page about a run: what came out, why, what it cost, and every row behind it."""

from dsrl.stages.report.report import Report

__all__ = ["Report"]
