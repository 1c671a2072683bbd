"""Base against trained on the same test items: how much better, how sure, and whether the items were known before."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dsrl.evaluate.clean import equal_items, given_away, on_clean
from dsrl.evaluate.statistics import bootstrap, detectable, mcnemar, sign_flip_p_value, wilson
from dsrl.part import part
from dsrl.stage import Stage
from dsrl.study import Evaluation

if TYPE_CHECKING:
    from dsrl.context import Context
    from dsrl.study import Study

METHOD = "paired bootstrap over items, p by random sign flips"
GREEDY_METHOD = "exact McNemar"


@part
class Compare(Stage):
    """Pairs the two evaluations item by item. Only looks, so it is never stored."""

    name = "compare"
    needs = ("evaluation_base", "evaluation_trained")
    adds = ()
    stored = False

    resamples: int = Field(default=10_000, gt=0)
    seed: int = Field(default=0, ge=0)

    def __call__(self, study: "Study", context: "Context") -> "Study":
        base, trained = study.evaluation_base, study.evaluation_trained
        equal = equal_items(study)
        overlap = {} if equal is None else {"training": len(equal)}
        if overlap.get("training"):
            context.progress.warn(f"compare: {overlap['training']} test items are among the training samples")
        if base is None or trained is None:
            return study.add(figures={"overlap": overlap})
        for doubt in doubts(base, trained):
            context.progress.warn(f"compare: {doubt}; don't compare these numbers")
        if base.test != trained.test or base.num_items != trained.num_items:
            return study.add(figures={"overlap": overlap})
        known = given_away(study) | (equal or set())
        clean = on_clean(base, trained, known, self.resamples, self.seed, self._difference)
        looked = bool(study.selected) and study.task.contamination.policy != "keep"
        figures = {**self._figures(base, trained), "clean": {**clean, "looked": looked}}
        context.progress.say(sentence(base, trained, figures["difference"]))
        return study.add(figures={**figures, "overlap": overlap})

    def _figures(self, base: Evaluation, trained: Evaluation) -> dict[str, Any]:
        gains = [after - before for before, after in paired(base.item_rates, trained.item_rates)]
        verdicts = paired(base.item_greedy, trained.item_greedy)
        gained = sum(after and not before for before, after in verdicts)
        lost = sum(before and not after for before, after in verdicts)
        return {
            "difference": self._difference(gains),
            "greedy": {
                "base": _greedy(base),
                "trained": _greedy(trained),
                "difference": trained.greedy - base.greedy,
                "p_value": mcnemar(gained, lost),
                "method": GREEDY_METHOD,
            },
            "flipped": {"gained": gained, "lost": lost},
            "minimum_detectable": detectable(gains),
            "format_free": trained.format_free - base.format_free,
        }

    def _difference(self, gains: list[float]) -> dict[str, Any]:
        """Empty where no item was answered by both."""
        if not gains:
            return {}
        gain = bootstrap(gains, self.resamples, self.seed)
        p_value = sign_flip_p_value(gains, self.resamples, self.seed)
        return {
            "estimate": gain.value,
            "low": gain.low,
            "high": gain.high,
            "p_value": p_value,
            "method": METHOD,
            "num_items": len(gains),
        }


def paired(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Both models' values of the items that both were measured on."""
    return [pair for pair in zip(first, second, strict=True) if None not in pair]


def doubts(base: Evaluation, trained: Evaluation) -> list[str]:
    """What makes two evaluations not comparable, in words."""
    words = {
        "test": "the two models were measured on different test sets",
        "grader": "the two models were graded differently",
        "samples_per_item": "the two models gave different numbers of replies",
        "temperature": "the two models were sampled at different temperatures",
    }
    return [text for name, text in words.items() if getattr(base, name) != getattr(trained, name)]


def sentence(base: Evaluation, trained: Evaluation, difference: dict[str, Any]) -> str:
    """`pass@1 41.2 % -> 72.3 % (+31.1, 95 % interval 27.9 to 34.4, 400 items)`."""
    change = f"pass@1 {100 * base.pass_at_1.value:.1f} % -> {100 * trained.pass_at_1.value:.1f} %"
    if not difference:
        return f"{change} (no item was answered by both)"
    estimate, low, high = (100 * difference[name] for name in ("estimate", "low", "high"))
    return f"{change} ({estimate:+.1f}, 95 % interval {low:.1f} to {high:.1f}, {difference['num_items']} items)"


def _greedy(model: Evaluation) -> dict[str, float]:
    """Share of items with a right greedy reply and Wilson's interval."""
    known = [right for right in model.item_greedy if right is not None]
    low, high = wilson(sum(known), len(known))
    return {"value": model.greedy, "low": low, "high": high}
