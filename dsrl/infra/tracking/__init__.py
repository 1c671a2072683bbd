"""Runs in MLflow: parameters, series, figures, data sets and the report, beside every other run of the store."""

from dsrl.infra.tracking.tracking import Tracking

__all__ = ["Tracking"]
