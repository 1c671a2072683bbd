"""Is the model that sees undecided and under-trained, as it should be? Measured on pictures it has not seen."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dsrl.data.model import Sampling
from dsrl.graders import Number
from dsrl.models import huggingface, vision
from dsrl.quickstart.visual.base import VisualPretrain
from dsrl.quickstart.visual.documents import prompt, style
from dsrl.quickstart.visual.testset import Labelled

SAMPLES = 2
LONGEST = 48
BATCH = 240
STYLES = ("worked", "bare", "prose")


@dataclass(frozen=True)
class Verdict:
    """One sampled reply, graded as everywhere."""

    level: int
    style: str
    correct: bool


@dataclass(frozen=True)
class Measured:
    """The replies to validation questions at temperature 1, `SAMPLES` for each."""

    verdicts: Sequence[Verdict] = field(repr=False)

    @property
    def accuracy(self) -> float:
        """pass@1."""
        return _share(self.verdicts)

    def of(self, name: str) -> float:
        """Share of right ones among the replies of a style."""
        return _share([verdict for verdict in self.verdicts if verdict.style == name])

    def faults(self, recipe: VisualPretrain) -> list[str]:
        """What keeps the gate shut before the last look."""
        worked, gap = self.of("worked"), self.of("worked") - self.of("bare")
        checks = {
            f"worked answers {worked:.2f}, below {recipe.min_worked}": worked >= recipe.min_worked,
            f"style gap {gap:.2f}, below {recipe.min_gap}": gap >= recipe.min_gap,
        }
        return self.unfit(recipe) + [fault for fault, passed in checks.items() if not passed]

    def unfit(self, recipe: VisualPretrain) -> list[str]:
        """What no model may be used with: a pass rate that leaves nothing to start from or nothing to learn."""
        low, high = recipe.min_accuracy, recipe.max_accuracy
        return [] if low <= self.accuracy <= high else [f"pass@1 {self.accuracy:.2f}, not within {low} and {high}"]

    def facts(self) -> dict[str, Any]:
        """The figures for `pretraining.json`."""
        levels, styles = defaultdict(list), defaultdict(list)
        for verdict in self.verdicts:
            levels[str(verdict.level)].append(verdict)
            styles[verdict.style].append(verdict)
        return {
            "replies": len(self.verdicts),
            "pass_at_1": round(self.accuracy, 4),
            "style_share": {name: round(len(styles[name]) / len(self.verdicts), 4) for name in STYLES},
            "style_accuracy": {name: round(self.of(name), 4) for name in STYLES},
            "level_accuracy": {name: round(_share(found), 4) for name, found in sorted(levels.items())},
        }

    def __str__(self) -> str:
        facts = self.facts()
        return (
            f"validation pass@1 {self.accuracy:.3f}, by style {facts['style_accuracy']}, by level "
            f"{facts['level_accuracy']}"
        )


def _share(verdicts: Sequence[Verdict]) -> float:
    return sum(verdict.correct for verdict in verdicts) / max(1, len(verdicts))


def measure(model: Any, processor: Any, items: Sequence[Labelled]) -> Measured:
    """Sample and grade."""
    model.eval()
    asked = [(item, number) for item in items for number in range(SAMPLES)]
    parts = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    return Measured([verdict for part in parts for verdict in _batch(model, processor, part)])


def _batch(model: Any, processor: Any, asked: Sequence[tuple[Labelled, int]]) -> list[Verdict]:
    shown = [vision.Shown(prompt(item.question.text), (item.scene.draw(),)) for item, _ in asked]
    inputs = vision.encode(processor, shown, "chat")
    streams = [f"{item.mark} {number}" for item, number in asked]
    sampling = Sampling(temperature=1.0)
    drawn = huggingface.draw_from(model, processor.tokenizer, inputs, streams, [LONGEST] * len(asked), sampling)
    replies = processor.tokenizer.batch_decode([reply.ids for reply in drawn], skip_special_tokens=True)
    return [_verdict(item, reply) for (item, _), reply in zip(asked, replies, strict=True)]


def _verdict(item: Labelled, reply: str) -> Verdict:
    correct = Number().grade(reply, str(item.answer)).correct
    return Verdict(item.question.level, style(reply), correct)
