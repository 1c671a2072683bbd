"""One job of a sweep, as it runs on its node inside submitit."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsrl.core.signals import Termination
from dsrl.pipeline.run_status import read

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from dsrl.cli.app import RunPipeline

TIME_IS_UP = signal.SIGUSR2
"""What submitit has Slurm send before the time limit."""


class JobFailed(Exception):
    """Makes submitit end with an exit code that Slurm takes for a failure."""


@dataclass(frozen=True)
class SweepJob:
    """A `dsrl run` with these arguments, whose run folder is `folder`."""

    arguments: list[str]
    folder: str
    run_pipeline: "RunPipeline"

    def __call__(self) -> float | None:
        """Returns the trained model's pass@1, if there is one. Raises `JobFailed`."""
        from dsrl.cli.app import dispatch

        late = Late()
        signal.signal(TIME_IS_UP, late)
        termination = Termination()
        signal.signal(signal.SIGTERM, termination)
        code = dispatch(self.arguments, self.run_pipeline)
        if late.received and code != 0:
            late.requeue()
        if termination.received and code != 0:  # scancel, or a preemption after which Slurm starts us again
            raise SystemExit(code)
        if code != 0:
            raise JobFailed(f"dsrl ended with exit code {code}: {read(Path(self.folder)).get('reason', 'see above')}")
        return pass_at_1(Path(self.folder))

    def checkpoint(self) -> "DelayedSubmission":
        """What is to run when the job is put back into the queue: the same, which finds what is in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Late(Termination):
    """A handler of the signal before the time limit: the run ends as by Ctrl-C, and then submitit puts the job back."""

    def __init__(self) -> None:
        self._requeue = signal.getsignal(TIME_IS_UP)

    def requeue(self) -> None:
        """Doesn't return: the process ends, or submitit says that it was put back too often."""
        assert callable(self._requeue)
        self._requeue(TIME_IS_UP, None)


def pass_at_1(folder: Path) -> float | None:
    """The trained model's, out of `metrics.json`."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found: float | None = (metrics.get("evaluate", {}).get("trained") or {}).get("pass_at_1")
    return found
