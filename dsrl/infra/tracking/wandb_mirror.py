"""Weights & Biases beside MLflow: the same series and final figures, from the same child process. Its own settings are
the environment's: WANDB_API_KEY, WANDB_MODE=offline, WANDB_BASE_URL, WANDB_ENTITY."""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.infra.tracking.series import Point

if TYPE_CHECKING:
    import wandb

AXES = {"live": "live/seconds", "train": "train/step"}
"""First part of a series' name -> what is on its horizontal axis."""


class Mirror:
    """One run there. Whatever fails costs the mirror, never the run nor MLflow."""

    def __init__(self, opening: dict[str, Any]) -> None:
        self.error: str | None = None
        self._run: wandb.Run | None = None
        if opening.get("wandb"):
            self._guarded(self._begin, opening)

    def log(self, points: Sequence[Point]) -> None:
        """Points of the series, as they go to MLflow."""
        self._guarded(self._log, points)

    def finish(self, closing: dict[str, Any], points: Sequence[Point]) -> None:
        """The rest of the series, the final figures, and the end."""
        self._guarded(self._log, points)
        self._guarded(self._finish, closing)

    def _guarded(self, work: Any, argument: Any) -> None:
        """A foreign library of which nothing is known but that it must not do harm."""
        try:
            work(argument)
        except Exception as error:  # noqa: BLE001
            self.error = f"{type(error).__name__}: {error}".partition("\n")[0]
            print(f"wandb: {self.error}", file=sys.stderr)
            self._run = None

    def _begin(self, opening: dict[str, Any]) -> None:
        import wandb

        sweep = opening["sweep"]
        self._run = wandb.init(
            project=opening["experiment"],
            name=opening["name"],
            group=Path(sweep).name if sweep else None,
            config=opening["parameters"],
            dir=opening["folder"],
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True),
        )
        for part, axis in AXES.items():
            self._run.define_metric(f"{part}/*", step_metric=axis)

    def _log(self, points: Sequence[Point]) -> None:
        for row in rows(points) if self._run else ():
            assert self._run is not None
            self._run.log(row)

    def _finish(self, closing: dict[str, Any]) -> None:
        if self._run is None:
            return
        self._run.summary.update(closing.get("metrics", {}))
        self._run.finish(exit_code=0 if closing["status"] == "FINISHED" else 1)


def rows(points: Sequence[Point]) -> Iterator[dict[str, float]]:
    """Points of one moment as one row, with their place on the axis."""

    def moment(point: Point) -> tuple[str, int]:
        return point.name.partition("/")[0], point.step

    for (part, step), group in groupby(points, key=moment):
        axis = {AXES[part]: float(step)} if part in AXES else {}
        yield {**axis, **{point.name: point.value for point in group}}
