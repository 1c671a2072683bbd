"""Validation of a quickstart's base model: it must be undecided between styles of answer, and under-trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dsrl.graders import Number
from dsrl.quickstart.base import Recipe

SAMPLES = 2
"""Replies per validation question, at temperature 1."""
MAX_REPLY_TOKENS = 48
STYLES = ("worked", "bare", "prose")


@dataclass(frozen=True)
class GradedReply:
    level: int
    style: str
    correct: bool
    correct_anywhere: bool


def grade_reply(reply: str, answer: int, level: int, style: str) -> GradedReply:
    grader = Number()
    correct = grader.grade(reply, str(answer)).correct
    return GradedReply(level, style, correct, grader.correct_anywhere(reply, str(answer)))


@dataclass(frozen=True)
class Validation:
    replies: Sequence[GradedReply] = field(repr=False)
    """`SAMPLES` consecutive replies per question."""

    @cached_property
    def accuracy(self) -> float:
        """pass@1."""
        return _accuracy(self.replies)

    @cached_property
    def style_accuracy(self) -> dict[str, float]:
        return {name: _accuracy([reply for reply in self.replies if reply.style == name]) for name in STYLES}

    @property
    def style_gap(self) -> float:
        """Accuracy of worked answers minus that of bare ones."""
        return self.style_accuracy["worked"] - self.style_accuracy["bare"]

    def faults(self, recipe: Recipe) -> list[str]:
        """Why training goes on; empty if the model is ready."""
        faults = self.out_of_bounds(recipe)
        if (worked := self.style_accuracy["worked"]) < recipe.min_worked:
            faults.append(f"worked answers {worked:.2f}, below {recipe.min_worked}")
        if self.style_gap < recipe.min_gap:
            faults.append(f"style gap {self.style_gap:.2f}, below {recipe.min_gap}")
        return faults

    def out_of_bounds(self, recipe: Recipe) -> list[str]:
        """Why the model can't be used at all: too little to start from, or nothing to learn."""
        low, high = recipe.min_accuracy, recipe.max_accuracy
        return [] if low <= self.accuracy <= high else [f"pass@1 {self.accuracy:.2f}, not within {low} and {high}"]

    def figures(self, unit: str) -> dict[str, Any]:
        """The entries for `pretraining.json`; `unit` is the plural of what is asked about."""
        total = len(self.replies)
        styles = Counter(reply.style for reply in self.replies)
        levels = sorted({reply.level for reply in self.replies})
        by_level = {level: [reply for reply in self.replies if reply.level == level] for level in levels}
        starts = range(0, total, SAMPLES)
        num_right = Counter(sum(reply.correct for reply in self.replies[start : start + SAMPLES]) for start in starts)
        return {
            unit: total // SAMPLES,
            "samples_per_question": SAMPLES,
            "pass_at_1": round(self.accuracy, 4),
            "format_free": round(sum(reply.correct_anywhere for reply in self.replies) / total, 4),
            "style_gap": round(self.style_gap, 4),
            "style_share": {name: round(styles[name] / total, 4) for name in STYLES},
            "style_accuracy": {name: round(share, 4) for name, share in self.style_accuracy.items()},
            "level_accuracy": {str(level): round(_accuracy(replies), 4) for level, replies in by_level.items()},
            f"{unit}_by_number_right": [num_right[number] for number in range(SAMPLES + 1)],
        }

    def __str__(self) -> str:
        styles = ", ".join(f"{name} {share:.2f}" for name, share in self.style_accuracy.items())
        return f"validation pass@1 {self.accuracy:.3f} ({styles})"


def _accuracy(replies: Sequence[GradedReply]) -> float:
    return sum(reply.correct for reply in replies) / max(1, len(replies))
