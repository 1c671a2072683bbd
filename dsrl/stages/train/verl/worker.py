"""The child of `train.Verl`: `python -m dsrl.stages.train.verl.worker job.json`, in the trainer's environment.

Loads no model itself. It runs veRL, turns its metrics into `progress.jsonl`, keeps the best and the last checkpoint,
and has the chosen one exported. It kills every process of the training if anything fails or its parent exits.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any

from dsrl.core.child_process import NO_TELEMETRY, end_in_words
from dsrl.core.files import append_json_line, tail_lines
from dsrl.stages.train.checkpoints import complete_checkpoints, mark_complete, prune
from dsrl.stages.train.failure_causes import resource_hint
from dsrl.stages.train.job import CHECKPOINTS, FAILURE, JOB, LOG, PROGRESS, WORKER_HOSTS, TrainingJob, read_job
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.metrics import GradedReplies, step_metrics, validation_score
from dsrl.stages.train.verl.resources import TRAINING_VARIABLE, VerlResources
from dsrl.stages.train.verl.reward import GRADER_FAILURE, GRADES

POLL_SECONDS = 0.2
VERL_METRICS = "verl_steps.jsonl"
LATEST_STEP = "latest_checkpointed_iteration.txt"
REMOVED_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE", "MLFLOW_TRACKING_URI")
"""Variables that would connect veRL to another Ray or MLflow."""
SOCKET_NAMES, CPU_PLATFORM = "dsrl.stages.train.verl.socket_names", "dsrl.stages.train.verl.cpu"
"""Modules that veRL loads in each of its processes."""
MAX_CONSTANT_BATCHES = 20
"""Batches of groups without reward variance after which DAPO, which would resample for ever, is stopped."""


class TrainingFailed(Exception):
    """The training must stop; the text says why."""


def main() -> None:
    """Run the training job whose file is the first argument."""
    job = read_job(Path(sys.argv[1]))
    process_tree.adopt_orphans()
    Thread(target=_end_with_parent, daemon=True).start()
    environment = verl_environment(job, os.environ)
    try:
        # a killed attempt may have trained to the end
        if not any(one.step >= job.steps for one in complete_checkpoints(job.path(CHECKPOINTS))):
            _train(job, environment)
        code = _start("dsrl.stages.train.verl.export", job, environment).wait()
        if code != 0:
            raise TrainingFailed(f"export: {end_in_words(code)}")
    except TrainingFailed as error:
        job.report_failure(str(error))
        sys.exit(1)
    finally:
        process_tree.kill_descendants()


def _end_with_parent() -> None:
    """Standard input ends with the parent; no process of the training may outlive it."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    process_tree.kill_descendants()
    os._exit(1)


def _train(job: TrainingJob, environment: Mapping[str, str]) -> None:
    """Run veRL to its end. Raises `TrainingFailed`."""
    for name in (VERL_METRICS, GRADES, WORKER_HOSTS):
        shutil.rmtree(job.path(name), ignore_errors=True)
        job.path(name).unlink(missing_ok=True)
    follower = MetricsFollower(job)
    log_start = job.path(LOG).stat().st_size if job.path(LOG).is_file() else 0
    process = _start("dsrl.stages.train.verl.launch", job, environment)
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        follower.update()
    follower.update()
    if process.returncode != 0:
        _report_resource(job, log_start)
        raise TrainingFailed(end_in_words(process.returncode))


def _report_resource(job: TrainingJob, log_start: int) -> None:
    """Report a missing resource that a worker wrote to the log: it isn't in the error that reached the trainer."""
    if not job.path(LOG).is_file():  # the job was started by hand
        return
    with job.path(LOG).open("rb") as file:
        file.seek(log_start)
        hint = resource_hint(file.read().decode("utf-8", errors="replace"))
    known = job.failure() or ""
    if hint and not known.startswith(GRADER_FAILURE) and resource_hint(known) is None:
        job.report_failure(hint, replace=True)


class MetricsFollower:
    """Turns veRL's metrics into `progress.jsonl`, step by step, and marks and prunes its checkpoints."""

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.resources = job, VerlResources(**job.settings["engine"])
        self.grades = GradedReplies(job.path(GRADES), job.rows_per_step)
        self._offset = 0

    def update(self) -> None:
        """Process what was written since the last call. Raises `TrainingFailed`."""
        self.grades.update()
        lines, self._offset = tail_lines(self.job.path(VERL_METRICS), self._offset)
        for row in map(json.loads, lines):
            self._step(row["step"], row["data"])
        if self.job.path(FAILURE).exists():
            raise TrainingFailed("a worker has reported a failure")
        num_groups = self.grades.num_groups
        if num_groups >= MAX_CONSTANT_BATCHES * self.job.rows_per_step and not self.grades.has_variance:
            raise TrainingFailed(
                f"the reward is constant: the replies to each of {num_groups} questions in a row earned the same, so "
                "rl=dapo would resample for ever; choose samples with a pass rate between 0 and 1"
            )

    def _step(self, step: int, data: dict[str, Any]) -> None:
        score = validation_score(data, self.job)
        row: dict[str, Any] = {"step": step}
        if "training/global_step" in data:
            try:
                row |= step_metrics(data, self.resources.devices, self.job.settings["max_response_tokens"])
            except FloatingPointError as error:
                raise TrainingFailed(f"step {step}: {error}") from error
            row |= self._grades_of(step)
        if score is not None:
            row["validation"] = score
        append_json_line(self.job.path(PROGRESS), row)
        # a checkpoint is complete once veRL has saved all of it and reported its step
        folder = self.job.path(CHECKPOINTS)
        latest = folder / LATEST_STEP
        if step > 0 and latest.is_file() and int(latest.read_text()) == step:
            mark_complete(folder / f"global_step_{step}", step, score)
            prune(folder, self.job.keep)

    def _grades_of(self, step: int) -> dict[str, float]:
        """Raises `TrainingFailed` if replies are missing: veRL would pad the batch and continue."""
        if self.job.algorithm == "dapo":
            return self.grades.take_all()
        grades = self.grades.take_step(step)
        expected = self.job.rows_per_step * self.job.settings["responses_per_prompt"]
        missing = expected - int(grades.get("graded", 0))
        if missing > 0:
            raise TrainingFailed(f"step {step}: {missing} of {expected} replies are missing; the log says why")
        return grades


def verl_environment(job: TrainingJob, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of veRL, Ray and vLLM: without telemetry or another Ray, and on the CPU with our platform."""
    environment = {name: value for name, value in inherited.items() if name not in REMOVED_VARIABLES}
    environment |= {
        **NO_TELEMETRY,
        "VERL_FILE_LOGGER_PATH": str(job.path(VERL_METRICS)),
        "VERL_USE_EXTERNAL_MODULES": SOCKET_NAMES,
        TRAINING_VARIABLE: token_hex(8),
        "HYDRA_FULL_ERROR": "1",
    }
    if not VerlResources(**job.settings["engine"]).gpus:
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        environment["VERL_PLATFORM"] = "cpu"
        environment["VERL_USE_EXTERNAL_MODULES"] = f"{SOCKET_NAMES},{CPU_PLATFORM}"
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        environment.setdefault("OMP_NUM_THREADS", "1")
    return environment


def _start(module: str, job: TrainingJob, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", module, str(job.path(JOB))]
    return subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
