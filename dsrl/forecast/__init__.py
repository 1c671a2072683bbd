"""Forecasts of the requests, tokens, dollars and GPU-hours of a run, before it spends anything: `dsrl plan`."""

from dsrl.forecast.settings import Plan

__all__ = ["Plan"]
