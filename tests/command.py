"""The command line as a user calls it, in a process of its own or in this one."""

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
"""Of child processes: without keys and settings of whoever runs the tests, and with this checkout to import."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `dsrl` ended."""

    code: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    """`dsrl` by the interpreter that runs the tests."""
    return [sys.executable, "-m", "dsrl", *arguments]


def dsrl(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Outcome:
    """Run `dsrl` to its end."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env={**ENVIRONMENT, **(env or {})}, capture_output=True, text=True, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
