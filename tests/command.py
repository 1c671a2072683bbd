"""Run the `dsrl` command in a child process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("DSRL_", "MLFLOW_", "OPENAI_"))},
    "PYTHONPATH": str(CHECKOUT),
    "HF_HUB_OFFLINE": "1",
}
"""Environment of child processes: this checkout on PYTHONPATH, none of the user's API keys and settings."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a `dsrl` command."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    """The `dsrl` command with this interpreter."""
    return [sys.executable, "-m", "dsrl", *arguments]


def dsrl(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Outcome:
    """Run `dsrl` and wait for it."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env={**ENVIRONMENT, **(env or {})}, capture_output=True, text=True, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
