"""Runs as jobs of a real Slurm: sweeps, failures, cancelling, time limits, preemption, and a Ray over two nodes."""

import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.command import CHECKOUT
from tests.e2e.rays import marked, ray_python
from tests.e2e.runs import SMALL, Place, metrics
from tests.e2e.slurm.engine import Slurm, until

pytestmark = pytest.mark.e2e
LITTLE = ("slurm.cpus=1", "slurm.memory_gb=3", "slurm.minutes=30")
BREAKING = """
from dsrl.core.component import component
from dsrl.stages.select import PaperRanking

@component("tests.test_slurm.Breaks")
class Breaks(PaperRanking):
    def __call__(self, state, context):
        if self.m == 40:
            raise RuntimeError("broken on purpose")
        return super().__call__(state, context)
"""


def tree(folder: Path) -> dict[str, str]:
    """The environment of a run that imports what is in the folder."""
    return {"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{folder}"}


def test_one_job_of_a_sweep_fails_and_the_others_go_on(finished: Place, slurm: Slurm) -> None:
    (finished.folder / "breaking.py").write_text(BREAKING)
    outcome = finished.dsrl(
        *("-m", "hydra/launcher=slurm", "hydra.launcher.poll_seconds=0.5", "hydra.sweep.dir=sweep"),
        *(*SMALL, *LITTLE, "tracking.enabled=true", "stop_after=select", "m=20,40"),
        *("plugins=[breaking]", "select._target_=breaking.Breaks"),
        **slurm.environment,
        **tree(finished.folder),
    )
    sweep = finished.folder / "sweep"
    first, second = (job["id"] for job in json.loads((sweep / "sweep.json").read_text()))
    assert outcome.code == 3, outcome.err
    assert "1 of 2 jobs failed" in outcome.err
    assert f"{second}" in outcome.err
    assert "m=40  RuntimeError: broken on purpose" in outcome.err
    assert slurm.ended(first) == [["COMPLETED", "0:0"]]
    assert slurm.ended(second) == [["FAILED", "1:0"]]
    said = json.loads((sweep / "1" / "status.json").read_text())
    assert (said["status"], said["slurm_job"], said["host"][:4]) == ("failed", second, "node")
    (log,) = sweep.glob(f".submitit/{second}/*_log.out")
    assert "Traceback" in log.read_text()
    assert 'raise RuntimeError("broken on purpose")' in log.read_text()
    assert runs_in_mlflow(finished.store) >= {
        ("sweep", "FINISHED"),
        ("quickstart 0", "FINISHED"),
        ("quickstart 1", "FAILED"),
    }
    shown = finished.dsrl("status", "sweep", **slurm.environment)
    assert [line.split()[0] for line in shown.out.splitlines()] == ["finished", "failed"]


def runs_in_mlflow(store: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(store / "mlflow.db") as database:
        found = database.execute("select name, status from runs").fetchall()
    database.close()
    return set(found)


def test_a_job_goes_on_after_it_was_cancelled_late_and_preempted(finished: Place, slurm: Slurm) -> None:
    """Cancelled at a checkpoint and sent again; told that its time is up, and put back by itself; then preempted, and
    put back by Slurm; and still every step of the training stands in its record once."""
    asked = (*SMALL, *LITTLE, "m=16", "rl.max_steps=120", "train.checkpoint_every=5", "stop_after=train")

    def send(folder: str) -> str:
        outcome = finished.dsrl("submit", *asked, f"hydra.run.dir={folder}", **slurm.environment)
        assert outcome.code == 0, outcome.err
        return str(json.loads((finished.folder / folder / "submission.json").read_text())["job"])

    def steps() -> int:
        (path,) = [*finished.store.glob("work/train/*/progress.jsonl")] or [Path()]
        return len(path.read_text().splitlines()) if path.is_file() else 0

    def checkpointed(after: int) -> bool:
        known = [int(path.parent.name.partition("-")[2]) for path in finished.store.glob("work/train/*/*/*/whole.json")]
        return max(known, default=0) > after

    cancelled = send("runs/day/cancelled")
    until("a checkpoint", lambda: checkpointed(0))
    slurm.say("scancel", cancelled)
    assert slurm.ended(cancelled)[0][0].startswith("CANCELLED")
    assert json.loads((finished.folder / "runs/day/cancelled" / "status.json").read_text())["status"] == "interrupted"

    job, before = send("runs/day/again"), steps()
    assert before > 0
    until("more checkpoints", lambda: checkpointed(before))
    before = steps()
    slurm.say("scancel", "--batch", "--signal=USR1", job)  # as Slurm does before the time limit
    until("another start", lambda: status(finished, "runs/day/again").get("restarts") == 1)
    until("more checkpoints", lambda: checkpointed(before))
    slurm.say("srun", "--partition=high", "--nodes=2", "--exclusive", "sleep", "1")
    until("its end", lambda: status(finished, "runs/day/again").get("status") == "finished")

    assert status(finished, "runs/day/again")["attempt"] == 3
    assert [state for state, _ in slurm.ended(job)] == ["REQUEUED", "PREEMPTED", "COMPLETED"]
    progress = finished.entry("train", metrics(finished.folder / "runs/day/again")) / "progress.jsonl"
    rows = [json.loads(line) for line in progress.read_text().splitlines()]
    assert [row["step"] for row in rows if "reward" in row] == list(range(1, 121))
    assert finished.dsrl("status", job, **slurm.environment).out.startswith("finished     runs/day/again")


def status(place: Place, folder: str) -> dict[str, object]:
    path = place.folder / folder / "status.json"
    found: dict[str, object] = json.loads(path.read_text()) if path.is_file() else {}
    return found


RAY = """
import subprocess, sys
from pathlib import Path
from dsrl.infra.ray import SlurmRay
program = '''
import ray, socket, sys, time
ray.init(log_to_driver=False)
@ray.remote(num_gpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(1)
    return socket.gethostname()
print("on", *sorted(ray.get([where.remote() for _ in range(4)])), flush=True)
sys.exit(5)
'''
with SlurmRay(object_store_gb=0.1).open(Path(sys.argv[2]), python=sys.argv[1]) as ray:
    sys.exit(subprocess.run([sys.argv[1], "-c", program], env=ray.environment).returncode)
"""


def test_a_ray_over_two_nodes(slurm: Slurm, tmp_path: Path) -> None:
    """Started in the job, used with what Slurm gave, its driver's exit code the job's, and nothing of it left."""
    before = marked()
    (tmp_path / "job.py").write_text(RAY)
    words = [sys.executable, str(tmp_path / "job.py"), ray_python(), str(tmp_path / "logs")]
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\nexport PYTHONPATH={CHECKOUT}\nexec {' '.join(words)}\n")
    asked = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--gpus-per-node=2", "--mem=3000")
    job = slurm.say("sbatch", "--parsable", *asked, f"--output={tmp_path}/log", str(tmp_path / "job.sh")).strip()
    assert slurm.ended(job) == [["FAILED", "5:0"]]
    log = (tmp_path / "log").read_text()
    assert "2 nodes, 4 CPUs, 4 GPUs" in log
    assert "on node1 node1 node2 node2" in log
    assert {path.name for path in (tmp_path / "logs" / "ray").iterdir()} == {"node1", "node2"}
    assert marked() <= before
