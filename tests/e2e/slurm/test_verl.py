"""veRL itself over two nodes of a real Slurm, on the CPU: cancelled in the middle, sent again, and run to its end.

Takes two launches of veRL, each with twice the processes of one on a single machine, so it isn't part of every check:

    DSRL_LONG=1 .venv/bin/python -m pytest -m e2e tests/e2e/slurm/test_verl.py
"""

import json
import os
from pathlib import Path

import pytest

from tests.e2e.rays import marked
from tests.e2e.runs import SMALL, Place, metrics
from tests.e2e.slurm.engine import Slurm, until
from tests.e2e.test_verl import INTERPRETER, at_work, course

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not os.environ.get("DSRL_LONG"), reason="takes many minutes: DSRL_LONG=1"),
    pytest.mark.skipif(not INTERPRETER.is_file(), reason="veRL's environment isn't there: make verl"),
]
MOST = 1200.0
"""Seconds that a launch may take where others work, too."""
ON_EVERY_NODE = {"create_colocated_worker_cls.<locals>.WorkerDict", "vLLMHttpServer"}
"""veRL's names for a process that trains and one that draws replies."""


def test_two_nodes_train_one_model_and_go_on_where_they_were_cancelled(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, slurm: Slurm
) -> None:
    before, place = marked(), Place(tmp_path_factory.mktemp("two"), cache)
    asked = (
        *(*SMALL, "train=verl", f"train.python={INTERPRETER}", "train.checkpoint_every=1", "rl.max_steps=3"),
        *("cluster=slurm", "cluster.object_store_gb=0.2", "slurm.nodes=2", "slurm.cpus=2", "slurm.memory_gb=12"),
    )

    def send(folder: str) -> str:
        outcome = place.dsrl("submit", *asked, f"hydra.run.dir={folder}", **slurm.environment)
        assert outcome.code == 0, outcome.err
        return str(json.loads((place.folder / folder / "submission.json").read_text())["job"])

    cancelled = send("runs/day/cancelled")
    until("a step", lambda: any(row["step"] == 2 for row in at_work(place)) or slurm.gone(cancelled), MOST)
    slurm.say("scancel", cancelled)
    assert slurm.ended(cancelled)[0][0].startswith("CANCELLED")
    assert marked() <= before

    job = send("runs/day/again")
    until("its end", lambda: slurm.gone(job), MOST)
    log = (place.folder / f"runs/day/again/slurm-{job}.log").read_text()
    assert slurm.ended(job) == [["COMPLETED", "0:0"]], log
    assert "2 nodes, 16 CPUs, 2 GPUs" in log
    entry = place.entry("train", metrics(place.folder / "runs/day/again"))
    assert "global_step_" in json.loads((entry / "job.json").read_text())["resume"]
    steps = [row for row in course(entry) if "reward" in row]
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert all(row["rollout_probs_diff_mean"] < 1e-6 for row in steps)
    workers = json.loads((entry / "workers.json").read_text())
    assert workers.keys() == {"node1", "node2"}
    assert all(set(names) >= ON_EVERY_NODE for names in workers.values())
    assert {path.name for path in (place.folder / "runs/day/again/ray").iterdir()} == {"node1", "node2"}
    assert marked() <= before
