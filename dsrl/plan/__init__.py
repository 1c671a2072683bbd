"""What a run will ask for and cost, before it spends anything: `dsrl plan`."""

from dsrl.plan.settings import Plan

__all__ = ["Plan"]
