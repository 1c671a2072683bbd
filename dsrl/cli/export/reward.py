"""The task's grader as a reward function for veRL, for exported rows:

    data.image_key=images
    reward.custom_reward_function.path=pkg://dsrl.cli.export.reward
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.grader=FOLDER/grader.json

`train=verl` of dsrl uses its own reward function, which also records every grade.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dsrl.graders import Grader
from dsrl.graders.rebuild import rebuild


def compute_score(
    data_source: str,  # noqa: ARG001 - veRL's signature
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    grader: str,
    format_share: float = 0.0,
    **_others: Any,
) -> dict[str, float]:
    """The reward of a reply, and whether it is correct and in the output format. `grader` is the path of
    `grader.json`."""
    grade = _load(grader).for_question(extra_info["prompt"]).grade(solution_str, ground_truth)
    return {"score": grade.reward(format_share), "correct": float(grade.correct), "format_ok": float(grade.format_ok)}


@cache
def _load(path: str) -> Grader:
    return rebuild(json.loads(Path(path).read_text(encoding="utf-8")))
