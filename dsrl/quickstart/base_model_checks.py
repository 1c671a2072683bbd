"""Is the base model undecided and under-trained, as it should be? Measured on stories it has not read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dsrl.data.model import Sampling
from dsrl.graders import Number
from dsrl.models.huggingface import Ask, draw, encode_prompt
from dsrl.quickstart.base import Pretrain
from dsrl.quickstart.documents import prompt, style
from dsrl.quickstart.stories import LEVELS, Story

SAMPLES = 2
LONGEST = 48
BATCH = 400
STYLES = ("worked", "bare", "prose")


@dataclass(frozen=True)
class Verdict:
    """One sampled reply, graded as everywhere."""

    level: int
    style: str
    correct: bool
    correct_anywhere: bool


@dataclass(frozen=True)
class Measured:
    """The replies to validation stories at temperature 1, `SAMPLES` for each."""

    stories: Sequence[Story] = field(repr=False)
    verdicts: Sequence[Verdict] = field(repr=False)

    @cached_property
    def accuracy(self) -> float:
        """pass@1."""
        return _share(self.verdicts)

    @cached_property
    def of_style(self) -> dict[str, float]:
        """Share of right ones among the replies of each style."""
        return {name: _share([verdict for verdict in self.verdicts if verdict.style == name]) for name in STYLES}

    @cached_property
    def gap(self) -> float:
        """How much more often worked answers are right than bare ones."""
        return self.of_style["worked"] - self.of_style["bare"]

    def faults(self, recipe: Pretrain) -> list[str]:
        """What keeps the gate shut before the last look."""
        worked = self.of_style["worked"]
        checks = {
            f"worked answers {worked:.2f}, below {recipe.min_worked}": worked >= recipe.min_worked,
            f"style gap {self.gap:.2f}, below {recipe.min_gap}": self.gap >= recipe.min_gap,
        }
        return self.unfit(recipe) + [fault for fault, passed in checks.items() if not passed]

    def unfit(self, recipe: Pretrain) -> list[str]:
        """What no model may be used with: a pass rate that leaves nothing to start from or nothing to learn."""
        low, high = recipe.min_accuracy, recipe.max_accuracy
        return [] if low <= self.accuracy <= high else [f"pass@1 {self.accuracy:.2f}, not within {low} and {high}"]

    def facts(self) -> dict[str, Any]:
        """The figures for `pretraining.json`."""
        styles = Counter(verdict.style for verdict in self.verdicts)
        starts = range(0, len(self.verdicts), SAMPLES)
        right = Counter(sum(verdict.correct for verdict in self.verdicts[row : row + SAMPLES]) for row in starts)
        return {
            "stories": len(self.stories),
            "samples_per_story": SAMPLES,
            "pass_at_1": round(self.accuracy, 4),
            "format_free": round(sum(verdict.correct_anywhere for verdict in self.verdicts) / len(self.verdicts), 4),
            "style_gap": round(self.gap, 4),
            "style_share": {name: round(styles[name] / len(self.verdicts), 4) for name in STYLES},
            "style_accuracy": {name: round(share, 4) for name, share in self.of_style.items()},
            "level_accuracy": {str(level): round(self._level(level), 4) for level in LEVELS},
            "stories_by_number_right": [right[number] for number in range(SAMPLES + 1)],
        }

    def _level(self, level: int) -> float:
        return _share([verdict for verdict in self.verdicts if verdict.level == level])

    def __str__(self) -> str:
        styles = ", ".join(f"{name} {share:.2f}" for name, share in self.of_style.items())
        return f"validation pass@1 {self.accuracy:.3f} ({styles})"


def _share(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.correct for verdict in verdicts) / max(1, len(verdicts))


def measure(model: Any, tokenizer: Any, stories: Sequence[Story]) -> Measured:
    """Sample and grade. Shorter stories go first, so that a batch is of one length or nearly so."""
    model.eval()
    ordered = sorted(stories, key=lambda story: len(story.changes))
    asked = [(story, number) for story in ordered for number in range(SAMPLES)]
    verdicts: list[Verdict] = []
    for start in range(0, len(asked), BATCH):
        verdicts += _batch(model, tokenizer, asked[start : start + BATCH])
    return Measured(ordered, verdicts)


def _batch(model: Any, tokenizer: Any, asked: Sequence[tuple[Story, int]]) -> list[Verdict]:
    asks = [
        Ask(encode_prompt(tokenizer, prompt(story), "chat"), f"{story.text} {number}", LONGEST)
        for story, number in asked
    ]
    drawn = draw(model, tokenizer, asks, Sampling(temperature=1.0))
    replies = tokenizer.batch_decode([reply.ids for reply in drawn], skip_special_tokens=True)
    return [_verdict(story, reply) for (story, _), reply in zip(asked, replies, strict=True)]


def _verdict(story: Story, reply: str) -> Verdict:
    grader, answer = Number(), str(story.answer)
    correct = grader.grade(reply, answer).correct
    return Verdict(len(story.changes), style(reply), correct, grader.correct_anywhere(reply, answer))
