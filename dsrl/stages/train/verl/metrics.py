"""veRL's metrics in our words, a line of `progress.jsonl` a step."""

import math
from collections.abc import Mapping
from typing import Any

from dsrl.stages.train.job import Job
from dsrl.stages.train.verl.config import SOURCE

WORDS = {
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
"""Our word -> veRL's. Its `critic/score` is the reward whether there is a critic or not."""
MUST_BE_FINITE = ("reward", "loss", "kl", "entropy", "grad_norm", "value_loss", "rollout_probs_diff_mean")


def translated(data: Mapping[str, Any], devices: int, longest: int) -> dict[str, float]:
    """What a step's line says. Raises FloatingPointError where one of them is no number: in JSON veRL writes null."""
    broken = [name for name in MUST_BE_FINITE if WORDS[name] in data and not _finite(data[WORDS[name]])]
    if broken:
        raise FloatingPointError(f"{', '.join(broken)} is no finite number")
    row = {ours: data[theirs] for ours, theirs in WORDS.items() if _finite(data.get(theirs))}
    tokens: Any = data.get("perf/throughput")  # of one device
    return {
        **row,
        **({"tokens_per_second": tokens * devices} if _finite(tokens) else {}),
        **_truncated(data, longest),
    }


def _truncated(data: Mapping[str, Any], longest: int) -> dict[str, float]:
    """veRL counts replies as long as the longest of the batch, which are cut ones only where that is the limit."""
    most, share = (data.get(f"response_length/{name}") for name in ("max", "clip_ratio"))
    if most is None or share is None:
        return {}
    return {"truncated": share if most >= longest else 0.0}


def validation(data: Mapping[str, Any], job: Job) -> float | None:
    """Share of right replies to held-out samples, where this line has it."""
    value = data.get(f"val-aux/{SOURCE}/correct/mean@{job.validation_replies}")
    return value if _finite(value) else None


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
