"""What a run will ask for and cost, before it spends anything: `dsrl plan`."""

from dsrl.forecast.settings import Plan

__all__ = ["Plan"]
