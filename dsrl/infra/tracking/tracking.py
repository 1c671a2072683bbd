"""Tracking in the run's own process. A child talks to MLflow, so neither its import nor a dead server delays a run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, field_validator

from dsrl.core import child_process
from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.infra.tracking import run_entry
from dsrl.infra.tracking.client import TRACKING_SECRETS, LiveMetrics


class Reporter(Protocol):
    """Where warnings go and live numbers come from: `dsrl.pipeline.progress.progress.Progress`."""

    def warn(self, text: str) -> None: ...
    def listen(self, listener: Callable[[dict[str, Any]], None]) -> None: ...


class Rooted(Protocol):
    """The store."""

    @property
    def root(self) -> Path: ...


class OpenRun(run_entry.TrackedRun, Protocol):
    """A run under way: `dsrl.pipeline.run.Context`."""

    @property
    def store(self) -> Rooted: ...
    @property
    def progress(self) -> Reporter: ...
    def keep(self, name: str, make: Callable[[], LiveMetrics], close: Callable[[LiveMetrics], None]) -> LiveMetrics: ...


STATUS = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "budget": "KILLED",
}
LONGEST_REASON = 240
INTERRUPTED_SECONDS = 1.0
"""Wait for MLflow after Ctrl-C; afterwards the child finishes alone."""
RELATIVE_SQLITE = re.compile(r"^sqlite:///(?!/)")


@component("tracking")
class Tracking(Component):
    """Where runs are tracked. A failing server causes a warning, never a failed run."""

    enabled: bool = True
    uri: str | None = None
    """MLflow's tracking URI; None: MLFLOW_TRACKING_URI if set, else an SQLite file in the store. Use a server's URL
    for runs on several machines."""
    experiment: str = "dsrl"
    sweep: str | None = None
    """Runs of the same sweep share a parent run; None: Hydra's multirun folder, if there is one."""
    wandb: bool = False
    """Also log the metrics to Weights & Biases."""
    patience: float = Field(default=60.0, gt=0)
    """Seconds to wait for MLflow at the end of a run."""

    @field_validator("uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        if uri is not None and run_entry.PASSWORD.search(uri):
            raise UserError(
                "tracking.uri: a password doesn't belong in the config (it is not repeated here)",
                got=run_entry.without_password(uri),
                next_step="export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI",
            )
        return uri

    @field_validator("wandb")
    @classmethod
    def _installed(cls, wandb: bool) -> bool:
        if wandb and find_spec("wandb") is None:
            raise UserError("wandb=true needs the package wandb", next_step="pip install 'dsrl[wandb]', or wandb=false")
        return wandb

    def start(self, run: OpenRun, values: dict[str, Any]) -> None:
        """Log the run as running. Returns at once: MLflow is imported while the stages run."""
        if self.enabled:
            run.progress.listen(self._kept(run, values))

    def track(self, run: OpenRun, values: dict[str, Any], state: run_entry.TrackedState | None, status: str) -> None:
        """Log the results and close the run. `status`: finished, stopped, failed, interrupted or budget."""
        if not self.enabled:
            return
        live = self._kept(run, values)
        live.end()
        process = live.process
        closing = run_entry.closing(run, state, STATUS.get(status, "FAILED"))
        hurry = status == "interrupted"
        patience = min(INTERRUPTED_SECONDS, self.patience) if hurry else self.patience
        try:
            answer, _ = process.communicate(json.dumps(closing) + "\n", timeout=patience)
        except subprocess.TimeoutExpired:
            if hurry:
                live.leave()
                return
            process.kill()
            process.communicate()
            self._warn(run, f"no answer within {self.patience:g} s")
            return
        said = json.loads(answer or "{}") if process.returncode == 0 else {}
        if said.get("logged"):
            self._warn_dropped(run, live.dropped, said.get("dropped", 0))
            if reason := said.get("mirror"):
                run.progress.warn(f"wandb: not logged: {reason} (more in {log_file(run).name})")
            else:
                log_file(run).unlink(missing_ok=True)
        else:
            lines = child_process.tail(log_file(run)).splitlines() or [child_process.end_in_words(process.returncode)]
            self._warn(run, f"{lines[-1]} (more in {log_file(run).name})")

    def address(self, root: Path) -> str:
        """The absolute tracking URI. MLflow's own default depends on the working folder."""
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            return f"sqlite:///{(root / 'mlflow.db').absolute()}"
        if RELATIVE_SQLITE.match(uri):
            return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
        return uri

    def _kept(self, run: OpenRun, values: dict[str, Any]) -> LiveMetrics:
        return run.keep("tracking", lambda: LiveMetrics(self._begin(run, values)), LiveMetrics.close)

    def prepare(self, root: Path, sweep: str) -> str | None:
        """Create what the jobs of a sweep share, once, before they start. Returns the error, if any."""
        return self._maintain(root, sweep=sweep).get("error") if self.enabled else None

    def close(self, root: Path, run_dirs: list[str]) -> dict[str, Any]:
        """Close runs whose processes have ended. Returns `{"closed": number}`, or `{"error": reason}`."""
        return self._maintain(root, close=run_dirs) if self.enabled else {"closed": 0}

    def _maintain(self, root: Path, **request: Any) -> dict[str, Any]:
        from dsrl.infra.tracking.mlflow_maintenance_child import ask

        root.mkdir(parents=True, exist_ok=True)
        found = ask({**self._location(root), **request}, root / "tracking.log", self.patience)
        return {
            name: run_entry.without_password(said) if isinstance(said, str) else said for name, said in found.items()
        }

    def _location(self, root: Path) -> dict[str, Any]:
        """Where the child finds things in MLflow."""
        return {
            "uri": self.address(root),
            "experiment": self.experiment,
            "artifacts": (root / "mlartifacts").absolute().as_uri(),
            "lock": str(root / ".mlflow.lock"),
        }

    def _begin(self, run: OpenRun, values: dict[str, Any]) -> child_process.Child:
        process = child_process.start(
            "dsrl.infra.tracking.mlflow_child",
            [],
            log_file(run),
            threads=1,
            answers=subprocess.PIPE,
            secrets=TRACKING_SECRETS,
        )
        sweep = self.sweep or multirun_folder()
        opening = {
            **self._location(run.store.root),
            "sweep": sweep,
            "wandb": self.wandb,
            "folder": str(run.run_dir.absolute()),
            **run_entry.opening(run, values, in_sweep=sweep is not None),
        }
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(opening) + "\n")
            process.stdin.flush()
        except BrokenPipeError:  # it could not start; `track` reports why
            pass
        return process

    def _warn_dropped(self, run: OpenRun, messages: int, points: int) -> None:
        if messages or points:
            lost = f"{messages} messages and {points} points of the live series were dropped: MLflow was too slow"
            run.progress.warn(f"tracking: {lost}. The run itself is not affected.")

    def _warn(self, run: OpenRun, reason: str) -> None:
        text = f"tracking: not logged to {self.address(run.store.root)}: {reason[:LONGEST_REASON]}"
        run.progress.warn(f"{run_entry.without_password(text)}. The run itself is not affected.")


def log_file(run: OpenRun) -> Path:
    """The child's log; kept only if something went wrong."""
    return run.run_dir / "tracking.log"


def multirun_folder() -> str | None:
    """The folder of this run's Hydra sweep, if any."""
    if "hydra.core.hydra_config" not in sys.modules:
        return None
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return str(Path(HydraConfig.get().sweep.dir).absolute())
