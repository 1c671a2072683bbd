"""The child of `train.Verl`: `python -m dsrl.train.verl.worker job.json`, in the trainer's environment.

Holds no model itself. It follows veRL's file of metrics, keeps the best and the last checkpoint, ends all that was
started when anything breaks or its parent goes, and has the chosen checkpoint made into a model folder.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any

from dsrl.child import end_in_words
from dsrl.train import checkpoints
from dsrl.train.job import CHECKPOINTS, FAILURE, PROGRESS, Job, read_job
from dsrl.train.verl import processes
from dsrl.train.verl.grades import Grades
from dsrl.train.verl.journal import translated, validation
from dsrl.train.verl.reward import GRADES
from dsrl.train.verl.setup import Setup

POLL_SECONDS = 0.2
STEPS = "verl_steps.jsonl"
SAVED = "latest_checkpointed_iteration.txt"
STARVED = 20
"""Batches of groups without any signal after which DAPO, which would draw for ever, is ended."""

SEGMENTS: set[Path] = set()
"""Shared memory seen in use, some of which is left behind."""


class Broken(Exception):
    """The training must end; the text says why."""


def main() -> None:
    """One job, from its file."""
    job = read_job(Path(sys.argv[1]))
    processes.adopt()
    ray_folder = tempfile.mkdtemp(prefix="dsrl-ray-", dir="/tmp")
    Thread(target=_end_with_parent, args=[ray_folder], daemon=True).start()
    try:
        if not _finished(job):
            _train(job, ray_folder)
        _run("dsrl.train.verl.export", [str(job.path("job.json"))], _environment(job))
    except Broken as error:
        path = job.path(FAILURE)
        if not path.exists():
            path.write_text(json.dumps({"reason": str(error)}), encoding="utf-8")
        sys.exit(1)
    finally:
        _clean(ray_folder)


def _end_with_parent(ray_folder: str) -> None:
    """Standard input closes with whoever started this: then nothing of the training may live on."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    _clean(ray_folder)
    os._exit(1)


def _clean(ray_folder: str) -> None:
    processes.end_all(SEGMENTS)
    shutil.rmtree(ray_folder, ignore_errors=True)


def _finished(job: Job) -> bool:
    """Whether a killed try had trained to the end."""
    return any(checkpoint.step >= job.steps for checkpoint in checkpoints.whole(job.path(CHECKPOINTS)))


def _train(job: Job, ray_folder: str) -> None:
    """veRL to its end. Raises `Broken`."""
    for name in (STEPS, GRADES):
        shutil.rmtree(job.path(name), ignore_errors=True)
        job.path(name).unlink(missing_ok=True)
    follower = Follower(job)
    process = _start("dsrl.train.verl.launch", [str(job.path("job.json")), ray_folder], _environment(job))
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        follower.look()
    follower.look()
    if process.returncode != 0:
        raise Broken(end_in_words(process.returncode))


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
        SEGMENTS.update(processes.shared_memory(os.getpid()))

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
    """For veRL, Ray and vLLM: no telemetry, no other Ray, and on the CPU our platform."""
    setup = Setup(**job.settings["engine"])
    others = {"RAY_ADDRESS", "MLFLOW_TRACKING_URI", *(() if setup.gpus else ("CUDA_VISIBLE_DEVICES",))}
    kept = {name: value for name, value in os.environ.items() if name not in others}
    on_cpu = {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "dsrl.train.verl.cpu",
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    return {
        **kept,
        "VERL_FILE_LOGGER_PATH": str(job.path(STEPS)),
        "RAY_AUTH_TOKEN": token_hex(32),  # of this Ray alone; otherwise it writes one into the home folder
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
