"""The figures of a scoring, for `metrics.json` and the report."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dsrl.data.sample import Sample

NUM_BINS = 20


def score_figures(samples: Sequence[Sample], rollouts: int, low: float, high: float) -> dict[str, Any]:
    """All samples together, by origin, and the effect of each direction of rewriting."""
    origins = sorted({sample.origin for sample in samples})
    rewriting = {origin: rewriting_effect(samples, origin) for origin in origins}
    return {
        "rows": {"in": len(samples), "out": len(samples)},
        **summarize(samples),
        "rollouts": rollouts,
        "band": {"low": low, "high": high, "samples": sum(low < rate < high for rate in known_rates(samples))},
        "by_origin": {
            origin: summarize([sample for sample in samples if sample.origin == origin]) for origin in origins
        },
        "rewriting": {origin: effect for origin, effect in rewriting.items() if effect},
    }


def summarize(samples: Sequence[Sample]) -> dict[str, Any]:
    """Pass rates of some samples; those without any reply are counted as unmeasured."""
    values = known_rates(samples)
    scores = [sample.score for sample in samples if sample.score is not None]
    return {
        "samples": len(samples),
        "mean_pass_rate": sum(values) / len(values) if values else None,
        "zero": values.count(0.0),
        "one": values.count(1.0),
        "histogram": histogram(values),
        "unmeasured": len(samples) - len(values),
        "num_error": sum(score.num_error for score in scores),
        "num_truncated": sum(score.num_truncated for score in scores),
    }


def known_rates(samples: Sequence[Sample]) -> list[float]:
    values = (sample.score.value for sample in samples if sample.score is not None)
    return [value for value in values if value is not None]


def histogram(values: Sequence[float]) -> list[int]:
    """Counts in twenty equal bins between 0 and 1, both ends excluded; a bin includes its lower edge."""
    bins = Counter(min(int(value * NUM_BINS), NUM_BINS - 1) for value in values if 0 < value < 1)
    return [bins[number] for number in range(NUM_BINS)]


def rewriting_effect(samples: Sequence[Sample], origin: str) -> dict[str, Any] | None:
    """Pass rates of rewritten samples before and after, and in which part of the scale solved and unsolved ones end."""
    by_id = {sample.id: sample for sample in samples}
    children = [sample for sample in samples if sample.origin == origin and sample.parent_id in by_id]
    if not children:
        return None
    parents = [by_id[child.parent_id] for child in children if child.parent_id]
    transitions = Counter(
        (probe_outcome(parent), score_outcome(child)) for parent, child in zip(parents, children, strict=True)
    )
    outcomes = ("zero", "between", "one", "unmeasured")
    return {
        "pairs": len(children),
        "before": summarize(parents),
        "after": summarize(children),
        "transitions": {
            probe: {outcome: transitions[probe, outcome] for outcome in outcomes} for probe in ("solved", "unsolved")
        },
    }


def probe_outcome(sample: Sample) -> str:
    value = sample.probe.value if sample.probe else None
    return "unknown" if value is None else "solved" if value == 1 else "unsolved"


def score_outcome(sample: Sample) -> str:
    value = sample.score.value if sample.score else None
    return "unmeasured" if value is None else "zero" if value == 0 else "one" if value == 1 else "between"
