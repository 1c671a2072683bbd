"""What rewriting came to, for `metrics.json` and the report. Attempts and seeds are counted apart."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dsrl.data.sample import Rejected, Sample
from dsrl.stages.generate.candidate import Candidate
from dsrl.stages.rewrite.synthrl.seed_attempts import Stop, Trial

WRITTEN, NEW = "a readable question", "a new one that hides its answer"
"""What an attempt has to be before verifiers look at it."""


def gates(verifiers: Sequence[object]) -> list[str]:
    """What an attempt has to pass, in order; a verifier that stands there twice is numbered."""
    names = [type(verifier).__name__ for verifier in verifiers]
    again = [names[:place].count(name) for place, name in enumerate(names)]
    return [WRITTEN, NEW, *(f"{name} {time + 1}" if time else name for name, time in zip(names, again, strict=True))]


def left(outcomes: Sequence[Candidate | Rejected]) -> int:
    """Attempts that no gate has turned back yet."""
    return sum(isinstance(one, Candidate) for one in outcomes)


def seed_counts(samples: Sequence[Sample], rollouts: int) -> list[int]:
    """Seeds by their number of right replies, from 0 to all; those whose count is incomplete are in no bin."""
    scores = [sample.score for sample in samples if sample.score is not None]
    counts = Counter(score.num_correct for score in scores if score.num_valid >= rollouts)
    return [counts[number] for number in range(rollouts + 1)]


def variant_figures(
    samples: Sequence[Sample],
    trials: Sequence[Trial],
    variants: Sequence[Sample],
    *,
    attempts: int,
    stop: Stop,
    rollouts: int,
) -> dict[str, Any]:
    """Pass counts of seeds, of their variants when they were accepted, and of the variants drawn anew."""
    by_seed = {trial.seed.id: trial for trial in trials}
    chosen = [by_seed[variant.parent_id] for variant in variants if variant.parent_id]
    before = [trial.seed.score.num_correct for trial in chosen if trial.seed.score]
    kept = [trial.kept(stop) for trial in chosen]
    accepting = [one.rate.num_correct if one and one.rate else None for one in kept]
    fresh = [variant.score.num_correct for variant in variants if variant.score]
    return {
        "rows": {"in": len(samples), "out": len(samples) + len(variants)},
        "eligible": len(trials),
        "attempts": attempts,
        "variants": len(variants),
        "mean_seed": _mean(before),
        "mean_fresh": _mean(fresh),
        "mean_accepting": _mean([number for number in accepting if number is not None]),
        "yield": len(variants) / len(trials) if trials else None,
        "seeds": len(samples),
        "seed_counts": seed_counts(samples, rollouts),
        "counts": {"seed": before, "accepting": accepting, "fresh": fresh},
    }


def _mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
