"""The course of a training, step by step: `progress.jsonl`, one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MOST_POINTS = 200
EDGE_SHARE = 10
"""First and last reward are means over a tenth of the steps each."""


def read(path: Path) -> list[dict[str, Any]]:
    """All rows; a validation is merged into the row of its step."""
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        row = json.loads(line)
        steps[row["step"]] = {**steps.get(row["step"], {}), **row}
    return [steps[step] for step in sorted(steps)]


def cut(path: Path, step: int) -> None:
    """Forget what came after a checkpoint, also a half line of a killed process."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    path.write_bytes(b"".join(kept))


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the stage says of its training."""
    trained = [row for row in rows if row["step"] > 0]
    rewards = [row["reward"] for row in trained if row.get("reward") is not None]
    edge = max(1, len(rewards) // EDGE_SHARE)
    validated = [row for row in rows if row.get("validation") is not None]
    return {
        "reward_first": _mean(rewards[:edge]),
        "reward_last": _mean(rewards[-edge:]),
        "validation": [{"step": row["step"], "right": row["validation"]} for row in validated],
        "series": thinned(trained, MOST_POINTS),
    }


def warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Signs that nothing could be learned."""
    shares = [row["zero_variance"] for row in rows if row.get("zero_variance") is not None]
    if shares and min(shares) == 1:
        return ["all replies to a question always earned the same reward: nothing could be learned from them"]
    return []


def thinned(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many rows, evenly spread, first and last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[number * (len(rows) - 1) // (most - 1)] for number in range(most)]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
