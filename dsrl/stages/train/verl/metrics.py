"""Rows of `progress.jsonl` from veRL's metrics and from the files that its grading processes write."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dsrl.core.files import tail_lines
from dsrl.stages.train.job import TrainingJob
from dsrl.stages.train.verl.config import SOURCE

VERL_NAMES = {
    "reward": "critic/score/mean",
    "loss": "actor/pg_loss",
    "kl": "actor/kl_loss",
    "entropy": "actor/entropy",
    "completion_length": "response_length/mean",
    "grad_norm": "actor/grad_norm",
    "learning_rate": "actor/lr",
    "clipped": "actor/pg_clipfrac",
    "value_loss": "critic/vf_loss",
    "rollout_probs_diff_mean": "training/rollout_probs_diff_mean",
    "rollout_probs_diff_max": "training/rollout_probs_diff_max",
    "filtered_groups": "training/filter_groups/evicted_samples",
    "seconds": "timing_s/step",
}
"""Name in `progress.jsonl` -> veRL's name. `critic/score` is the reward, with a critic or without."""
MUST_BE_FINITE = ("reward", "loss", "kl", "entropy", "grad_norm", "value_loss", "rollout_probs_diff_mean")


def step_metrics(data: Mapping[str, Any], devices: int, max_tokens: int) -> dict[str, float]:
    """The metrics of a step. Raises FloatingPointError if one is not finite; veRL writes such values as null."""
    broken = [name for name in MUST_BE_FINITE if VERL_NAMES[name] in data and not _is_finite(data[VERL_NAMES[name]])]
    if broken:
        raise FloatingPointError(f"{', '.join(broken)} is not finite")
    row = {name: data[theirs] for name, theirs in VERL_NAMES.items() if _is_finite(data.get(theirs))}
    throughput: Any = data.get("perf/throughput")  # of one device
    if _is_finite(throughput):
        row["tokens_per_second"] = throughput * devices
    # veRL counts the replies as long as the longest of the batch; they are truncated only at the limit
    longest, share = (data.get(f"response_length/{name}") for name in ("max", "clip_ratio"))
    if longest is not None and share is not None:
        row["truncated"] = share if longest >= max_tokens else 0.0
    return row


def validation_score(data: Mapping[str, Any], job: TrainingJob) -> float | None:
    """Share of correct replies to the held-out samples, if this line has it."""
    value = data.get(f"val-aux/{SOURCE}/correct/mean@{job.validation_replies}")
    return value if _is_finite(value) else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


class GradedReplies:
    """Follows the JSON lines of all grading processes (see `reward`), grouped by question."""

    def __init__(self, folder: Path, rows_per_step: int) -> None:
        self.folder, self.rows_per_step = folder, rows_per_step
        self._offsets: dict[Path, int] = {}
        self._groups: dict[int, list[dict[str, Any]]] = defaultdict(list)

    def update(self) -> None:
        """Read the lines added since the last call."""
        for path in sorted(self.folder.glob("*.jsonl")):
            lines, self._offsets[path] = tail_lines(path, self._offsets.get(path, 0))
            for row in map(json.loads, lines):
                self._groups[row["index"]].append(row)

    def take_step(self, step: int) -> dict[str, float]:
        """Metrics of the replies to a step's questions; the table holds the questions of each step in a row."""
        return self._take([index for index in self._groups if index // self.rows_per_step + 1 == step])

    def take_all(self) -> dict[str, float]:
        """Metrics of all replies since the last call, for DAPO, which resamples groups across steps."""
        return self._take(list(self._groups))

    @property
    def num_groups(self) -> int:
        """Groups that weren't taken yet."""
        return len(self._groups)

    @property
    def has_variance(self) -> bool:
        """Whether any of these groups has replies with different rewards."""
        return not all(map(_equal_scores, self._groups.values()))

    def _take(self, indices: Iterable[int]) -> dict[str, float]:
        groups = [self._groups.pop(index) for index in indices]
        rows = [row for group in groups for row in group]
        if not rows:
            return {}
        return {
            "graded": len(rows),
            "correct": sum(row["correct"] for row in rows) / len(rows),
            "format_ok": sum(row["format_ok"] for row in rows) / len(rows),
            "zero_variance": sum(map(_equal_scores, groups)) / len(groups),
        }


def _equal_scores(group: list[dict[str, Any]]) -> bool:
    return len({row["score"] for row in group}) == 1
