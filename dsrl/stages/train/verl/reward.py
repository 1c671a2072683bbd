"""The task's one grader as veRL calls it, inside its Ray workers: `reward.custom_reward_function.path=pkg://...`.

veRL 0.9.1 takes an exception in here for a reply that never came, pads the batch and trains on. So a grader that breaks
leaves a failure in the job's folder, and whoever watches it ends the training.
"""

import json
import os
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from dsrl.graders import Grade, Grader
from dsrl.graders.rebuild import rebuild
from dsrl.stages.train.job import FAILURE, Job, read_job

GRADES = "grades"
"""Folder of the job with one file a grading process, a JSON object a reply."""
LOCK = Lock()


def compute_score(
    data_source: str,  # noqa: ARG001 - veRL's signature
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    job: str,
    **_others: Any,
) -> dict[str, float]:
    """The reward of a reply, and whether it is right and in the output format, as metrics of their own."""
    told, grader = _loaded(job)
    try:
        grade = grader.for_question(extra_info["prompt"]).grade(solution_str, ground_truth)
    except Exception as error:
        _tell(told, extra_info["id"], error)
        raise
    score = grade.reward(told.settings["format_share"])
    if extra_info["split"] == "train":
        _note(told, int(extra_info["index"]), grade, score)
    return {"score": score, "correct": float(grade.correct), "format_ok": float(grade.format_ok)}


@cache
def _loaded(path: str) -> tuple[Job, Grader]:
    job = read_job(Path(path))
    return job, rebuild(job.grader)


def _note(job: Job, index: int, grade: Grade, score: float) -> None:
    """One line, at once: the step's shares are taken of these."""
    row = {"index": index, "correct": grade.correct, "format_ok": grade.format_ok, "score": score}
    folder = job.path(GRADES)
    folder.mkdir(exist_ok=True)
    with LOCK, (folder / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _tell(job: Job, identifier: str, error: Exception) -> None:
    """The first failure is kept, whole or not at all."""
    reason = f"the grader broke on sample {identifier}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
    path = job.path(FAILURE)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"reason": reason}), encoding="utf-8")
    if not path.exists():
        temporary.replace(path)
