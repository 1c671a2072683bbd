"""The child of `train.Verl`: `python -m dsrl.stages.train.verl.worker job.json`, in the trainer's environment.

Holds no model itself. It follows veRL's file of metrics, keeps the best and the last checkpoint, ends all that was
started when anything breaks or its parent goes, and has the chosen checkpoint made into a model folder.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any

from dsrl.core.child_process import end_in_words
from dsrl.stages.train import checkpoints
from dsrl.stages.train.job import CHECKPOINTS, FAILURE, LOG, PROGRESS, WORKERS, Job, read_job
from dsrl.stages.train.verl import process_tree
from dsrl.stages.train.verl.failure_causes import want
from dsrl.stages.train.verl.graded_replies import Grades
from dsrl.stages.train.verl.metrics import translated, validation
from dsrl.stages.train.verl.resources import NAME, Setup
from dsrl.stages.train.verl.reward import GRADES

POLL_SECONDS = 0.2
STEPS = "verl_steps.jsonl"
SAVED = "latest_checkpointed_iteration.txt"
OTHERS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH", "RAY_NAMESPACE", "MLFLOW_TRACKING_URI")
"""Variables that would lead elsewhere."""
STARVED = 20
"""Batches of groups without any signal after which DAPO, which would draw for ever, is ended."""


class Broken(Exception):
    """The training must end; the text says why."""


def main() -> None:
    """One job, from its file."""
    job = read_job(Path(sys.argv[1]))
    process_tree.adopt()
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        if not _finished(job):
            _train(job)
        _run("dsrl.stages.train.verl.export", [str(job.path("job.json"))], _environment(job))
    except Broken as error:
        path = job.path(FAILURE)
        if not path.exists():
            path.write_text(json.dumps({"reason": str(error)}), encoding="utf-8")
        sys.exit(1)
    finally:
        process_tree.end_all()


def _end_with_parent() -> None:
    """Standard input closes with whoever started this: then nothing of the training may live on."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    process_tree.end_all()
    os._exit(1)


def _finished(job: Job) -> bool:
    """Whether a killed try had trained to the end."""
    return any(checkpoint.step >= job.steps for checkpoint in checkpoints.whole(job.path(CHECKPOINTS)))


def _train(job: Job) -> None:
    """veRL to its end. Raises `Broken`."""
    for name in (STEPS, GRADES, WORKERS):
        shutil.rmtree(job.path(name), ignore_errors=True)
        job.path(name).unlink(missing_ok=True)
    follower, said_before = Follower(job), _size(job.path(LOG))
    process = _start("dsrl.stages.train.verl.launch", [str(job.path("job.json"))], _environment(job))
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        follower.look()
    follower.look()
    if process.returncode != 0:
        _explain(job, said_before)
        raise Broken(end_in_words(process.returncode))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _explain(job: Job, said_before: int) -> None:
    """What a worker said of memory stands in the log, and not in the error that reached the trainer."""
    if not job.path(LOG).is_file():  # repeated by hand
        return
    with job.path(LOG).open("rb") as file:
        file.seek(said_before)
        found = want(file.read().decode("utf-8", errors="replace"))
    path = job.path(FAILURE)
    known = json.loads(path.read_text(encoding="utf-8"))["reason"] if path.is_file() else ""
    if found and not known.startswith("the grader broke") and want(known) is None:
        path.write_text(json.dumps({"reason": found}), encoding="utf-8")


class Follower:
    """Turns veRL's metrics into the journal, step by step, and looks after its checkpoints."""

    def __init__(self, job: Job) -> None:
        self.job, self.setup = job, Setup(**job.settings["engine"])
        self.grades = Grades(job.path(GRADES), job.rows_per_step)
        self._offset = 0

    def look(self) -> None:
        """Take in what is new. Raises `Broken`."""
        self.grades.look()
        for line in self._lines():
            row = json.loads(line)
            self._step(row["step"], row["data"])
        if self.job.path(FAILURE).exists():
            raise Broken("see the failure that a worker has left")
        if self.grades.waiting >= STARVED * self.job.rows_per_step and not self.grades.varied:
            raise Broken(
                f"the reward is constant: all replies to each of {self.grades.waiting} questions in a row earned the "
                "same, so rl=dapo would draw for ever; choose samples with a pass rate between 0 and 1"
            )

    def _lines(self) -> list[bytes]:
        path = self.job.path(STEPS)
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        end = added.rfind(b"\n") + 1
        self._offset += end
        return added[:end].splitlines()

    def _step(self, step: int, data: dict[str, Any]) -> None:
        right = validation(data, self.job)
        row: dict[str, Any] = {"step": step}
        if "training/global_step" in data:
            try:
                row.update(translated(data, self.setup.devices, self.job.settings["max_response_tokens"]))
            except FloatingPointError as error:
                raise Broken(f"step {step}: {error}") from error
            row.update(self._graded(step))
        if right is not None:
            row["validation"] = right
        self._write(row)
        self._keep(step, right)

    def _graded(self, step: int) -> dict[str, float]:
        """Raises `Broken` where replies never came: veRL pads the batch and goes on."""
        if self.job.algorithm == "dapo":
            return self.grades.so_far()
        shares = self.grades.of_step(step)
        wanted = self.job.rows_per_step * self.job.settings["responses_per_prompt"]
        lost = wanted - int(shares.get("graded", 0))
        if lost > 0:
            raise Broken(f"step {step}: {lost} of {wanted} replies never came; the log says why")
        return shares

    def _write(self, row: dict[str, Any]) -> None:
        with self.job.path(PROGRESS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _keep(self, step: int, right: float | None) -> None:
        """A checkpoint counts once it is saved whole and its step reported; best and last are kept."""
        places = self.job.path(CHECKPOINTS)
        saved = places / SAVED
        if step == 0 or not saved.is_file() or int(saved.read_text()) != step:
            return
        checkpoints.mark(places / f"global_step_{step}", step, right)
        checkpoints.prune(places, self.job.keep)


def _environment(job: Job) -> dict[str, str]:
    """For veRL, Ray and vLLM: no telemetry, no other Ray than ours, and on the CPU our platform."""
    setup = Setup(**job.settings["engine"])
    kept = {name: value for name, value in os.environ.items() if name not in OTHERS}
    if not setup.gpus:
        kept.pop("CUDA_VISIBLE_DEVICES", None)
    on_cpu = {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "dsrl.stages.train.verl.socket_names,dsrl.stages.train.verl.cpu",
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    return {
        **kept,
        "VERL_FILE_LOGGER_PATH": str(job.path(STEPS)),
        "VERL_USE_EXTERNAL_MODULES": "dsrl.stages.train.verl.socket_names",
        NAME: token_hex(8),
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HYDRA_FULL_ERROR": "1",
        **({} if setup.gpus else on_cpu),
    }


def _start(module: str, arguments: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], env=environment, stdin=subprocess.DEVNULL)


def _run(module: str, arguments: list[str], environment: dict[str, str]) -> None:
    code = _start(module, arguments, environment).wait()
    if code != 0:
        raise Broken(f"{module.rpartition('.')[2]}: {end_in_words(code)}")


if __name__ == "__main__":
    main()
