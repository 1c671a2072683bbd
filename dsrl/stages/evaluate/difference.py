"""Two evaluations on the same items: how much better the second is, how sure that is, and on which subjects."""

from collections.abc import Sequence
from typing import Any

from dsrl.data.difficulty_tiers import sort_tiers
from dsrl.data.evaluation import Evaluation, Setting
from dsrl.stages.evaluate.intervals import DIFFERENCES, bootstrap, few
from dsrl.stages.evaluate.statistics import detectable, mcnemar, sign_flip_p_value

METHOD = "paired bootstrap over items (BCa), p by random sign flips"
CAUTIOUS = "Student's t over items with one more at each end (too few differ for a bootstrap), p by random sign flips"
GREEDY_METHOD = "exact McNemar"
DOUBTS = {
    "test": "the two models were measured on different test sets",
    "grader": "the two models were graded differently",
    "samples_per_item": "the two models gave different numbers of replies",
    "temperature": "the two models were sampled at different temperatures",
    "top_p": "the two models were sampled with different top_p",
    "max_tokens": "the replies of the two models were cut at different lengths",
}


def doubts(base: Setting, trained: Setting) -> list[str]:
    """What makes two evaluations not comparable, in words."""
    return [
        f"{words} ({name}: {getattr(base, name)} and {getattr(trained, name)})"
        for name, words in DOUBTS.items()
        if getattr(base, name) != getattr(trained, name)
    ]


def difference(base: Evaluation, trained: Evaluation, *, resamples: int, seed: int) -> dict[str, Any]:
    """All figures of the comparison; `difference` is empty where no item was answered by both."""
    gains = [after - before for before, after in paired(base.item_rates, trained.item_rates)]
    verdicts = paired(base.item_greedy, trained.item_greedy)
    gained = sum(after and not before for before, after in verdicts)
    lost = sum(before and not after for before, after in verdicts)
    return {
        "difference": of_rates(gains, resamples, seed),
        "greedy": {
            "base": _estimate(base),
            "trained": _estimate(trained),
            "p_value": mcnemar(gained, lost),
            "method": GREEDY_METHOD,
            **_of_verdicts(verdicts, resamples, seed),
        },
        "flipped": {"gained": gained, "lost": lost},
        "minimum_detectable": detectable(gains),
        "format_free": trained.format_free.value - base.format_free.value,
        "subjects": by_name(base, trained, "item_subjects", resamples, seed),
        "tiers": by_name(base, trained, "item_tiers", resamples, seed),
    }


def of_rates(gains: Sequence[float], resamples: int, seed: int) -> dict[str, Any]:
    """Of pass@1; empty without items."""
    if not gains:
        return {}
    gain = bootstrap(gains, resamples, seed, DIFFERENCES)
    return {
        "estimate": gain.value,
        "low": gain.low,
        "high": gain.high,
        "p_value": sign_flip_p_value(gains, resamples, seed),
        "method": CAUTIOUS if few(gains) else METHOD,
        "num_items": len(gains),
    }


def by_name(base: Evaluation, trained: Evaluation, column: str, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    """The difference in pass@1 on each subject's or tier's items. Of twenty subjects that didn't change, one will have
    an interval without 0."""
    names = getattr(trained, column) or getattr(base, column)
    pairs = list(zip(names, base.item_rates, trained.item_rates, strict=True)) if names else []
    return {
        subject: of_rates(
            [after - before for name, before, after in pairs if name == subject and None not in (before, after)],  # type: ignore[operator]
            resamples,
            seed,
        )
        for subject in sort_tiers(names)
    }


def paired(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Both models' values of the items that both were measured on."""
    return [pair for pair in zip(first, second, strict=True) if None not in pair]


def sentence(base: Evaluation, trained: Evaluation, found: dict[str, Any]) -> str:
    """`pass@1 41.2 % -> 72.3 % (+31.1, 95 % interval 27.9 to 34.4, 400 items)`."""
    change = f"pass@1 {100 * base.pass_at_1.value:.1f} % -> {100 * trained.pass_at_1.value:.1f} %"
    if not found:
        return f"{change} (no item was answered by both)"
    estimate, low, high = (100 * found[name] for name in ("estimate", "low", "high"))
    return f"{change} ({estimate:+.1f}, 95 % interval {low:.1f} to {high:.1f}, {found['num_items']} items)"


def _estimate(model: Evaluation) -> dict[str, float]:
    return {"value": model.greedy.value, "low": model.greedy.low, "high": model.greedy.high}


def _of_verdicts(verdicts: Sequence[tuple[bool, bool]], resamples: int, seed: int) -> dict[str, float]:
    """The change of the greedy share with its interval, over the items for which both verdicts are known."""
    if not verdicts:
        return {}
    found = bootstrap([float(after) - float(before) for before, after in verdicts], resamples, seed, DIFFERENCES)
    return {"difference": found.value, "low": found.low, "high": found.high}
