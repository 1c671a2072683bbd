"""Hydra finds launchers in this namespace only, and imports each at every start: so this one is bare."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """The jobs of a sweep as an array of Slurm jobs, by submitit: `dsrl -m hydra/launcher=slurm ...`."""

    def __init__(self, **dials: Any) -> None:
        self.dials = dials

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:  # noqa: ARG002
        """A job composes its config itself, so nothing but the sweep's own is kept."""
        self.config, self.loader = config, hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs and wait for them. Raises `UserError` where any of them failed."""
        from dsrl.cli.slurm_launcher import launch
        from dsrl.main import launch as run_pipeline

        return launch(self.config, self.loader, self.dials, job_overrides, initial_job_idx, run_pipeline)
