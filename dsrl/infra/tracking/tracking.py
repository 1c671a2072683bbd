"""Our side of tracking: a child process talks to MLflow; neither its imports nor a dead server hold up a run."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from dsrl.core import child_process
from dsrl.core.component import Component, component
from dsrl.core.errors import UserError
from dsrl.infra.tracking import run_entry
from dsrl.infra.tracking.client import TRACKING_SECRETS, Live

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context
    from dsrl.pipeline.state import PipelineState

STATUS = {
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "budget": "KILLED",
}
LONGEST_REASON = 240
HURRY_SECONDS = 1.0
"""To wait for MLflow after Ctrl-C; then the child ends its work alone."""
RELATIVE_SQLITE = re.compile(r"^sqlite:///(?!/)")


@component("tracking")
class Tracking(Component):
    """Where runs are tracked. A server that fails costs a warning, never a run."""

    enabled: bool = True
    uri: str | None = None
    """MLflow's tracking URI; None: MLFLOW_TRACKING_URI where it is set, else an SQLite file in the store. Beyond one
    machine, the URL of a server."""
    experiment: str = "dsrl"
    sweep: str | None = None
    """Runs of the same sweep stand below one parent run; None: Hydra's multirun folder, if there is one."""
    wandb: bool = False
    """Mirror the same series to Weights & Biases."""
    patience: float = Field(default=60.0, gt=0)
    """Seconds to wait for MLflow at the end of a run."""

    @field_validator("uri")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        if uri is not None and run_entry.PASSWORD.search(uri):
            raise UserError(
                "tracking.uri: a password doesn't belong into the config (it is not repeated here)",
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

    def start(self, context: "Context", values: dict[str, Any]) -> None:
        """Show the run as running. Returns at once: MLflow is imported while the stages work."""
        if self.enabled:
            context.progress.listen(self._kept(context, values))

    def track(self, context: "Context", values: dict[str, Any], state: "PipelineState | None", status: str) -> None:
        """Log what came out and close the run. `status`: finished, stopped, failed or interrupted."""
        if not self.enabled:
            return
        live = self._kept(context, values)
        live.end()
        process = live.process
        closing = run_entry.closing(context, state, STATUS.get(status, "FAILED"))
        hurry = status == "interrupted"
        patience = min(HURRY_SECONDS, self.patience) if hurry else self.patience
        try:
            answer, _ = process.communicate(json.dumps(closing) + "\n", timeout=patience)
        except subprocess.TimeoutExpired:
            if hurry:
                live.leave()
                return
            process.kill()
            process.communicate()
            self._warn(context, f"no answer within {self.patience:g} s")
            return
        said = json.loads(answer or "{}") if process.returncode == 0 else {}
        if said.get("logged"):
            self._note_dropped(context, live.dropped, said.get("dropped", 0))
            if reason := said.get("mirror"):
                context.progress.warn(f"wandb: not mirrored: {reason} (more in {log_file(context).name})")
            else:
                log_file(context).unlink(missing_ok=True)
        else:
            lines = child_process.tail(log_file(context)).splitlines() or [
                child_process.end_in_words(process.returncode)
            ]
            self._warn(context, f"{lines[-1]} (more in {log_file(context).name})")

    def address(self, root: Path) -> str:
        """The tracking URI, absolute: MLflow's own default would depend on the working folder."""
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            return f"sqlite:///{(root / 'mlflow.db').absolute()}"
        if RELATIVE_SQLITE.match(uri):
            return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
        return uri

    def _kept(self, context: "Context", values: dict[str, Any]) -> Live:
        return context.keep("tracking", lambda: Live(self._begin(context, values)), Live.close)

    def prepare(self, root: Path, sweep: str) -> str | None:
        """Before the jobs of a sweep start elsewhere: make what they share, once. Returns why it couldn't be done."""
        return self._upkeep(root, sweep=sweep).get("error") if self.enabled else None

    def close(self, root: Path, run_dirs: list[str]) -> dict[str, Any]:
        """Close runs whose processes are gone. Returns `{"closed": number}`, or `{"error": reason}`."""
        return self._upkeep(root, close=run_dirs) if self.enabled else {"closed": 0}

    def _upkeep(self, root: Path, **wanted: Any) -> dict[str, Any]:
        from dsrl.infra.tracking.mlflow_maintenance_child import ask

        root.mkdir(parents=True, exist_ok=True)
        found = ask({**self._place(root), **wanted}, root / "tracking.log", self.patience)
        return {
            name: run_entry.without_password(said) if isinstance(said, str) else said for name, said in found.items()
        }

    def _place(self, root: Path) -> dict[str, Any]:
        """Where things are in MLflow, for its child."""
        return {
            "uri": self.address(root),
            "experiment": self.experiment,
            "artifacts": (root / "mlartifacts").absolute().as_uri(),
            "lock": str(root / ".mlflow.lock"),
        }

    def _begin(self, context: "Context", values: dict[str, Any]) -> child_process.Child:
        process = child_process.start(
            "dsrl.infra.tracking.mlflow_child",
            [],
            log_file(context),
            threads=1,
            answers=subprocess.PIPE,
            secrets=TRACKING_SECRETS,
        )
        sweep = self.sweep or multirun_folder()
        opening = {
            **self._place(context.store.root),
            "sweep": sweep,
            "wandb": self.wandb,
            "folder": str(context.run_dir.absolute()),
            **run_entry.opening(context, values, in_sweep=sweep is not None),
        }
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(opening) + "\n")
            process.stdin.flush()
        except BrokenPipeError:  # it could not even start; `track` says why
            pass
        return process

    def _note_dropped(self, context: "Context", messages: int, points: int) -> None:
        if messages or points:
            lost = f"{messages} messages and {points} points of the live series were dropped: MLflow was too slow"
            context.progress.warn(f"tracking: {lost}. The run itself is not touched by this.")

    def _warn(self, context: "Context", reason: str) -> None:
        text = f"tracking: not logged to {self.address(context.store.root)}: {reason[:LONGEST_REASON]}"
        context.progress.warn(f"{run_entry.without_password(text)}. The run itself is not touched by this.")


def log_file(context: "Context") -> Path:
    """Where the child writes what MLflow says; kept only if something went wrong."""
    return context.run_dir / "tracking.log"


def multirun_folder() -> str | None:
    """The folder of the Hydra sweep that this run belongs to."""
    if "hydra.core.hydra_config" not in sys.modules:
        return None
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return str(Path(HydraConfig.get().sweep.dir).absolute())
