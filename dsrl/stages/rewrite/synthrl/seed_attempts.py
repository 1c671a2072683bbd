"""The attempts at each seed: which variant is kept, when to give up, and the figures for `metrics.json`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dsrl.core.errors import StageFailed
from dsrl.data.sample import Rejected, Sample
from dsrl.stages.generate.accept_until import StopRule
from dsrl.stages.generate.candidate import Candidate

Stop = Literal["first", "best"]
Chain = Literal["parent", "last_accepted"]


@dataclass
class SeedAttempts:
    """The rewrites of one seed."""

    seed: Sample
    accepted: list[Candidate] = field(default_factory=list)
    """In the order of attempts."""
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, outcome: Candidate | Rejected) -> None:
        if isinstance(outcome, Candidate):
            self.accepted.append(outcome)
        else:
            self.rejected.append(outcome)

    def is_open(self, stop: Stop) -> bool:
        """Whether another attempt is made."""
        return stop == "best" or not self.accepted

    def shown_question(self, chain: Chain) -> str:
        """The question that the writer is asked to make harder."""
        return self.accepted[-1].input if chain == "last_accepted" and self.accepted else self.seed.input

    def kept(self, stop: Stop) -> Candidate | None:
        """The variant of this seed: the first accepted one, or the one with the fewest correct replies."""
        if stop == "first" or not self.accepted:
            return next(iter(self.accepted), None)
        return min(self.accepted, key=num_correct)

    def passed_over(self, stop: Stop) -> list[Candidate]:
        """Accepted candidates of which another one was kept."""
        kept = self.kept(stop)
        return [candidate for candidate in self.accepted if candidate is not kept]


def num_correct(candidate: Candidate) -> int:
    assert candidate.rate is not None, "HarderVariants.check requires a verifier that counts"
    return candidate.rate.num_correct


def seed_histogram(samples: Sequence[Sample], rollouts: int) -> list[int]:
    """Seeds by their number of correct replies, from 0 to all; seeds with an incomplete count are in no bin."""
    scores = [sample.score for sample in samples if sample.score is not None]
    counts = Counter(score.num_correct for score in scores if score.num_valid >= rollouts)
    return [counts[number] for number in range(rollouts + 1)]


def describe_unsuitable_seeds(samples: Sequence[Sample], eligible: int, rollouts: int, min_correct: int) -> str:
    """A warning with the histogram if all seeds are too hard or too easy, else empty."""
    counts = seed_histogram(samples, rollouts)
    histogram = f"correct replies 0 to {rollouts}: {' '.join(map(str, counts))} seeds"
    if incomplete := len(samples) - sum(counts):
        histogram += f", and {incomplete} without {rollouts} complete replies"
    if not eligible:
        return (
            f"rewrite: no seed is solved {min_correct} times or more, so none is rewritten ({histogram}); "
            "take easier seeds or lower rewrite.min_correct"
        )
    if counts[-1] == sum(counts):
        return f"rewrite: every seed is always solved ({histogram}); only their variants can teach this model anything"
    return ""


def check_yield(seeds: Sequence[SeedAttempts], attempts: int, min_yield: float) -> None:
    """Raises `StageFailed` if so few attempts are accepted that the rest would be paid for in vain."""
    accepted = sum(len(seed.accepted) for seed in seeds)
    if reason := StopRule(min_yield).reason_to_stop(attempts, accepted, 0):
        rejected = [one for seed in seeds for one in seed.rejected]
        reasons = Counter(one.reason for one in rejected).most_common()
        raise StageFailed(
            f"rewrite: giving up: {reason}; {', '.join(f'{count} x {reason}' for reason, count in reasons)}",
            got=f"such as {rejected[0].reason}: {(rejected[0].input or '')[:100]!r} {rejected[0].detail[:100]}",
            next_step="check the writer and the thresholds; rewrite.min_yield=0 makes all attempts; what was paid "
            "for is kept and not paid again",
        )


def variant_figures(
    samples: Sequence[Sample],
    seeds: Sequence[SeedAttempts],
    variants: Sequence[Sample],
    *,
    attempts: int,
    stop: Stop,
    rollouts: int,
) -> dict[str, Any]:
    """Correct replies to seeds, to their variants when they were accepted, and to the variants counted afresh."""
    by_id = {one.seed.id: one for one in seeds}
    chosen = [by_id[variant.parent_id] for variant in variants if variant.parent_id]
    kept = [one.kept(stop) for one in chosen]
    before = [one.seed.score.num_correct for one in chosen if one.seed.score]
    accepting = [one.rate.num_correct if one and one.rate else None for one in kept]
    fresh = [variant.score.num_correct for variant in variants if variant.score]
    return {
        "rows": {"in": len(samples), "out": len(samples) + len(variants)},
        "eligible": len(seeds),
        "attempts": attempts,
        "variants": len(variants),
        "mean_seed": mean(before),
        "mean_fresh": mean(fresh),
        "mean_accepting": mean([number for number in accepting if number is not None]),
        "yield": len(variants) / len(seeds) if seeds else None,
        "seeds": len(samples),
        "seed_counts": seed_histogram(samples, rollouts),
        "counts": {"seed": before, "accepting": accepting, "fresh": fresh},
    }


def mean(numbers: Sequence[int]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
