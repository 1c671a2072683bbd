"""A child process for MLflow maintenance outside of any run. It reads one JSON line.

Before a sweep: the tables, the experiment and the sweep's run, once, so that its jobs find them. Afterwards: runs whose
process is gone, and that MLflow takes for running, are closed as killed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core import child_process
from dsrl.infra.tracking.client import TRACKING_SECRETS
from dsrl.infra.tracking.mlflow_child import SETTINGS, alone, connected, experiment_id, parent_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient


def ask(request: dict[str, Any], log: Path, patience: float) -> dict[str, Any]:
    """In the parent: have it done. Returns what came of it: `{"closed": 2}`, or `{"error": "..."}`."""
    process = child_process.start(
        "dsrl.infra.tracking.mlflow_maintenance_child",
        [],
        log,
        threads=1,
        answers=subprocess.PIPE,
        secrets=TRACKING_SECRETS,
    )
    try:
        answer, _ = process.communicate(json.dumps(request) + "\n", timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"no answer within {patience:g} s"}
    if process.returncode == 0 and answer:
        log.unlink(missing_ok=True)
        found: dict[str, Any] = json.loads(answer)
        return found
    lines = child_process.tail(log).splitlines() or [child_process.end_in_words(process.returncode)]
    return {"error": f"{lines[-1]} (more in {log})"}


def main() -> None:
    """One request."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    sys.modules["pandas"] = None  # type: ignore[assignment]  # as in the worker
    request = json.loads(sys.stdin.readline())
    with alone(request["lock"]):
        client = connected(request["uri"])
        experiment = experiment_id(client, request)
        parent_tag(client, experiment, request.get("sweep"))
        closed = sum(close(client, experiment, run_dir) for run_dir in request.get("close", []))
    print(json.dumps({"closed": closed}), file=answers, flush=True)


def close(client: "MlflowClient", experiment: str, run_dir: str) -> int:
    """Close what still runs of this folder; returns how many that were."""
    quoted = run_dir.replace("'", "\\'")
    runs = client.search_runs([experiment], f"attributes.status = 'RUNNING' and tags.`dsrl.run_dir` = '{quoted}'")
    for run in runs:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(runs)


if __name__ == "__main__":
    main()
