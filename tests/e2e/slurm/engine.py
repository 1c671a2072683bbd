"""What tests ask of the Slurm that they started."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONGEST = 400.0
"""Seconds to wait for anything."""


@dataclass(frozen=True)
class Slurm:
    """A cluster, by its settings."""

    conf: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf)}

    def say(self, *command: str) -> str:
        """The output of one of Slurm's commands, which has to succeed."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def accounts(self, job: str) -> list[list[str]]:
        """State and exit code of every time that a job ran, oldest first."""
        asked = ("--noheader", "--parsable2", "--allocations", "--duplicates", "--format=State,ExitCode")
        return [line.split("|") for line in self.say("sacct", *asked, f"--jobs={job}").splitlines()]

    def gone(self, job: str) -> bool:
        """Whether it neither runs nor waits any more."""
        states = "--states=pending,running,completing,configuring,suspended"
        return job not in self.say("squeue", "--noheader", "--array", states, "--format=%i").split()

    def ended(self, job: str) -> list[list[str]]:
        """Its accounts, once they are closed: they come a little later than the job's own word."""
        until(f"the end of job {job}", lambda: self.gone(job))
        until(f"the accounts of job {job}", lambda: self.accounts(job)[-1][0] not in ("RUNNING", "COMPLETING"))
        return self.accounts(job)


def until(what: str, holds: Callable[[], bool], seconds: float = LONGEST) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)
