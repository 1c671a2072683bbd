"""Run `dsrl` in its own folder and store, and interrupt runs."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command import ENVIRONMENT, Outcome, command, dsrl

SMALL = (
    "experiment=quickstart",
    *(
        f"model.prepare.{key}"
        for key in (
            "steps=250",
            "first_look=250",
            "min_worked=0.0",
            "min_gap=-1.0",
            "min_accuracy=0.0",
            "max_accuracy=1.0",
        )
    ),
    "n=24",
    "m=8",
    "rollouts=4",
    "votes=4",
    "rollout.batch_size=16",
    "rl.prompts_per_step=4",
    "rl.responses_per_prompt=4",
    "rl.max_steps=4",
    "train.checkpoint_every=2",
    "train.validation=4",
    "train.validation_replies=2",
    "evaluate_base.samples_per_item=2",
    "task.test.limit=24",
    "select.fill=unsolved",
    "tracking.enabled=false",
)
"""The complete quickstart in a fraction of its time, with a base model of no required quality."""


@dataclass(frozen=True)
class Place:
    """A folder with its own store; the cache of the base model is shared."""

    folder: Path
    cache: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def environment(self) -> dict[str, str]:
        return {"DSRL_CACHE": str(self.cache), "OMP_NUM_THREADS": "1", "PLACE": str(self.folder)}

    def dsrl(self, *arguments: str, **environment: str) -> Outcome:
        """Run a command and wait for it."""
        return dsrl(*arguments, cwd=self.folder, env={**self.environment, **environment})

    def run(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """Run a command that must succeed; return its `metrics.json`."""
        run_dir = f"runs/{len(list(self.folder.glob('runs/*')))}"
        outcome = self.dsrl(*arguments, f"hydra.run.dir={run_dir}", **environment)
        assert outcome.code == 0, outcome.err
        return metrics(self.folder / run_dir)

    def interrupted(self, *arguments: str, when: Callable[[], bool], sign: signal.Signals) -> Outcome:
        """Start a run and send it the signal, to its own process only, as soon as `when()` is true."""
        process = subprocess.Popen(
            command(*arguments),
            cwd=self.folder,
            env={**ENVIRONMENT, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not when():
            assert process.poll() is None, f"it ended before it could be interrupted:\n{process.communicate()[1]}"
            time.sleep(0.02)
        process.send_signal(sign)
        out, err = process.communicate()
        return Outcome(process.returncode, out, err)

    def entry(self, stage: str, found: dict[str, Any]) -> Path:
        """The store entry of a stage of a run."""
        return self.store / "stages" / stage.partition("_")[0] / found["keys"][stage]

    def paid(self) -> int:
        """Number of lines in the reply cache: replies and requests."""
        return sum(path.read_bytes().count(b"\n") for path in (self.store / "calls").glob("*.jsonl"))

    def processes(self) -> list[int]:
        """Ids of living processes started in this folder, including all their children."""
        marker = f"PLACE={self.folder}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it has just ended
                found += [int(path.parent.name)] if marker in path.read_bytes() else []
        return found

    def making(self, stage: str) -> bool:
        """Whether the stage is running."""
        return any((self.store / "stages" / stage).glob(".making-*"))


def metrics(run_dir: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    return values


def requests(found: dict[str, Any]) -> int:
    """HTTP requests to the teacher."""
    return int(found["calls"].get("teacher", {}).get("requests", 0))
