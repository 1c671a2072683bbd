"""Training curves from the trainer's `progress.jsonl`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import formatting, svg
from dsrl.stages.report.svg import Panel

MAX_POINTS = 400
CURVES = {
    "Reward": "reward",
    "Correct": "correct",
    "Format followed": "format_ok",
    "Correct, held-out samples": "validation",
    "Reply length, tokens": "completion_length",
    "Groups without a signal": "zero_variance",
    "Entropy": "entropy",
    "KL from the base model": "kl",
    "Loss": "loss",
    "Critic loss": "value_loss",
    "Token probability, rollout against trainer": "rollout_probs_diff_mean",
}
"""Title -> name in `progress.jsonl`."""
SHARES = {"correct", "format_ok", "validation", "zero_variance"}


def training(state: PipelineState, metrics: Mapping[str, Any]) -> tuple[str, tuple[Panel, ...]] | None:
    """A sentence and the curves; None if nothing was trained."""
    figures = (metrics.get("stages") or {}).get("train") or {}
    steps = read_progress(state.files.get("train/progress.jsonl")) or figures.get("series") or []
    panels = tuple(panel for title, name in CURVES.items() if (panel := _panel(title, name, steps)))
    if not panels and state.trained is None:
        return None
    return _lead(figures, steps), panels


def read_progress(path: Path | None) -> list[dict[str, Any]]:
    """The steps of a training, without a last line that was cut off when the trainer was killed."""
    if path is None or not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line.strip()]


def _panel(title: str, name: str, steps: Sequence[Mapping[str, Any]]) -> Panel | None:
    def finite(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")

    points = [(step["step"], step[name]) for step in steps if finite(step.get(name)) and finite(step.get("step"))]
    if not points:
        return None
    values = [value for _, value in points]
    share = name in SHARES and all(0 <= value <= 1 for value in values)
    tenth = max(1, len(values) // 10)
    first, last = (
        formatting.percent(sum(end) / tenth, 0) if share else formatting.significant(sum(end) / tenth)
        for end in (values[:tenth], values[-tenth:])
    )
    words = f"{title} over {len(points)} steps, from {first} to {last}"
    stride = -(-len(points) // MAX_POINTS)
    ceiling = 1 if share or name == "reward" else None
    return Panel(title, f"{first} \u2192 {last}", svg.curve(points[::stride], label=words, ceiling=ceiling))


def _lead(figures: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    algorithm, engine = figures.get("algorithm"), figures.get("engine")
    number, chosen = figures.get("steps") or len(steps), figures.get("chosen_step")
    parts = [
        str(algorithm).upper().replace("_", " ") if algorithm else "",
        f"with {engine}" if engine else "",
        f"for {formatting.plural(number, 'step')}" if number else "",
    ]
    sentences = [f"{' '.join(filter(None, parts))}."] if any(parts) else []
    if chosen is not None:
        sentences.append(f"The checkpoint of step {chosen} was kept, chosen without the test set.")
    if steps:
        sentences.append("Figures above the curves are means over the first and the last tenth of the steps.")
    return " ".join(sentences)
