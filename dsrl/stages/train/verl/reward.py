"""The task's grader as veRL's reward function, which runs in Ray workers (`reward.custom_reward_function.path=pkg://...`).

veRL 0.9.1 treats an exception in here as a missing reply, pads the batch and trains on. So a grader that fails reports
a failure in the job's folder, which ends the training.
"""

import os
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from dsrl.core.files import append_json_line
from dsrl.graders import Grader
from dsrl.graders.rebuild import rebuild
from dsrl.stages.train.job import TrainingJob, read_job

GRADES = "grades"
"""Folder in the job's folder with one file per grading process and one JSON line per reply."""
GRADER_FAILURE = "the grader failed"
LOCK = Lock()


def compute_score(
    data_source: str,  # noqa: ARG001 - veRL's signature
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    job: str,
    **_others: Any,
) -> dict[str, float]:
    """The reward of a reply, and its correctness and format as metrics."""
    training, grader = _load(job)
    try:
        grade = grader.for_question(extra_info["prompt"]).grade(solution_str, ground_truth)
    except Exception as error:
        training.report_failure(
            f"{GRADER_FAILURE} on sample {extra_info['id']}: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        )
        raise
    score = grade.reward(training.settings["format_share"])
    if extra_info["split"] == "train":
        row = {
            "index": int(extra_info["index"]),
            "correct": grade.correct,
            "format_ok": grade.format_ok,
            "score": score,
        }
        folder = training.path(GRADES)
        folder.mkdir(exist_ok=True)
        with LOCK:
            append_json_line(folder / f"{os.getpid()}.jsonl", row)
    return {"score": score, "correct": float(grade.correct), "format_ok": float(grade.format_ok)}


@cache
def _load(path: str) -> tuple[TrainingJob, Grader]:
    job = read_job(Path(path))
    return job, rebuild(job.grader)
