"""The course of the training, out of the trainer's own `progress.jsonl`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.difficulty import Panel

MAX_POINTS = 400
CURVES = {
    "Reward": "reward",
    "Right": "correct",
    "Format kept": "format_ok",
    "Right, held-out samples": "validation",
    "Length of replies, in tokens": "completion_length",
    "Questions without a signal": "zero_variance",
    "Entropy": "entropy",
    "KL from the base model": "kl",
    "Loss": "loss",
    "Loss of the critic": "value_loss",
    "Rollout against trainer, probability of a token": "rollout_probs_diff_mean",
}
"""Title -> name in `progress.jsonl`."""
SHARES = {"correct", "format_ok", "validation", "zero_variance"}


def training(state: PipelineState, metrics: Mapping[str, Any]) -> tuple[str, tuple[Panel, ...]] | None:
    """A sentence and the curves; None where nothing was trained."""
    figures = (metrics.get("stages") or {}).get("train") or {}
    steps = read_progress(state.files.get("train/progress.jsonl")) or figures.get("series") or []
    panels = tuple(filter(None, (_panel(title, name, steps) for title, name in CURVES.items())))
    if not panels and state.trained is None:
        return None
    return _lead(figures, steps), panels


def read_progress(path: Path | None) -> list[dict[str, Any]]:
    """The steps of a training; a last line cut off by a kill is left out."""
    if path is None or not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    whole = [line for line in lines[:-1] if line.strip()]
    return [json.loads(line) for line in whole]


def series(steps: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) wherever it was reported."""
    return [(step["step"], step[name]) for step in steps if _number(step.get(name)) and _number(step.get("step"))]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _panel(title: str, name: str, steps: Sequence[Mapping[str, Any]]) -> Panel | None:
    points = series(steps, name)
    if not points:
        return None
    stride = -(-len(points) // MAX_POINTS)
    share = name in SHARES and all(0 <= value <= 1 for _, value in points)
    bounds: dict[str, float] = {"ceiling": 1} if share or name == "reward" else {}
    first, last = (
        formatting.percent(end, 0) if share else formatting.figure(end) for end in _ends([value for _, value in points])
    )
    words = f"{title} over {len(points)} steps, from {first} to {last}"
    return Panel(title, f"{first} \u2192 {last}", svg.curve(points[::stride], label=words, **bounds))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last tenth."""
    reach = max(1, len(values) // 10)
    return sum(values[:reach]) / reach, sum(values[-reach:]) / reach


def _lead(figures: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    number = figures.get("steps") or len(steps)
    parts = [str(figures["algorithm"]).upper().replace("_", " ")] if figures.get("algorithm") else []
    parts += [f"by {figures['engine']}"] if figures.get("engine") else []
    parts += [f"over {formatting.plural(number, 'step')}"] if number else []
    chosen = figures.get("chosen_step")
    kept = f" Kept: step {chosen}, chosen without looking at the test set." if chosen is not None else ""
    reading = " Above each curve: the means of its first and last tenth." if steps else ""
    return f"{' '.join(parts)}.{kept}{reading}" if parts else reading.strip()
