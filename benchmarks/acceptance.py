"""How often SynthRL's rules accept a rewrite by chance that isn't harder, by simulation.

python benchmarks/acceptance.py [--trials 200000] [--pass-rate 0.9] [--seed-count 16]

The rules are the pipeline's own classes. A seed has the true pass rate p and enters with at least 12 of 16 correct
(or exactly `--seed-count`). Its rewrite has the true pass rate q; with q = p it is equally hard, and accepting it is an
error. Prints the shares accepted at the first attempt and within eight, and by how much the accepting count
underestimates the true rate.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from dsrl.core.component import component
from dsrl.data.images import Prompt
from dsrl.data.model import Model, Reply, Sampling
from dsrl.data.sample import Rate
from dsrl.models.rollout.protocols import Rollout
from dsrl.stages.rewrite import IntervalBand, PassBand
from dsrl.stages.rewrite.synthrl.pass_band import PassCountBand
from dsrl.stages.score import PassCount

ROLLOUTS, THRESHOLD, ATTEMPTS = 16, 12, 8


@component("benchmarks.acceptance.unused")
class UnusedRollout(Rollout):
    """A rollout engine that is never used."""

    def generate(
        self, model: Model, prompts: Sequence[Prompt], sampling: Sampling, count: int, context: object
    ) -> list[list[Reply]]:
        raise NotImplementedError


COUNTER = PassCount(rollout=UnusedRollout(), rollouts=ROLLOUTS)


@dataclass(frozen=True)
class Rule:
    """A pass band, applied `tests` times; the second time with fresh replies to seed and rewrite."""

    name: str
    band: PassCountBand
    tests: int

    def table(self) -> numpy.ndarray:
        """(17, 17) booleans: [correct on the seed, correct on the rewrite] -> accepted."""
        numbers = range(ROLLOUTS + 1)
        return numpy.array([[self._accepts(rate(seed), rate(variant)) for variant in numbers] for seed in numbers])

    def _accepts(self, seed: Rate, variant: Rate) -> bool:
        return variant.num_correct >= self.band.min_correct and not self.band.refusal(seed, variant)


def rate(correct: int) -> Rate:
    """A pass rate of a complete count."""
    return Rate(
        model="m",
        num_rollouts=ROLLOUTS,
        num_valid=ROLLOUTS,
        num_correct=correct,
        num_error=0,
        num_truncated=0,
        temperature=1.0,
        grader="g",
    )


RULES = (
    Rule("counts (the paper)", PassBand(counter=COUNTER), 1),
    Rule("interval 0.95", IntervalBand(counter=COUNTER), 1),
    Rule("interval 0.99", IntervalBand(counter=COUNTER, confidence=0.99), 1),
    Rule("counts, confirmed again", PassBand(counter=COUNTER), 2),
    Rule("interval 0.95, confirmed again", IntervalBand(counter=COUNTER), 2),
)


def simulate(
    rule: Rule, seed_rate: float, variant_rate: float, trials: int, seed_count: int | None
) -> tuple[float, float, float]:
    """Share accepted at the first attempt and within all attempts, and mean accepting count minus the true one."""
    rng, table = numpy.random.default_rng(0), rule.table()
    first = rng.binomial(ROLLOUTS, seed_rate, trials)
    first = first[first >= THRESHOLD] if seed_count is None else first[first == seed_count]
    shape = (len(first), ATTEMPTS)
    counts = rng.binomial(ROLLOUTS, variant_rate, shape)
    passed = table[first[:, None], counts]
    for _ in range(rule.tests - 1):
        again, fresh = rng.binomial(ROLLOUTS, variant_rate, shape), rng.binomial(ROLLOUTS, seed_rate, shape)
        passed &= table[fresh, again]
    accepted = passed.any(axis=1)
    places = passed.argmax(axis=1)[accepted]
    bias = counts[accepted, places].mean() - ROLLOUTS * variant_rate if accepted.any() else float("nan")
    return passed[:, 0].mean(), accepted.mean(), bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200_000)
    parser.add_argument("--pass-rate", type=float, default=0.9)
    parser.add_argument("--seed-count", type=int)
    given = parser.parse_args()
    p = given.pass_rate
    print(f"| rule | true pass rates | first attempt | within {ATTEMPTS} | accepting count is off by |")
    print("|---|---|---|---|---|")
    for q in (p, 0.7, 0.5):
        for rule in RULES:
            once, within, bias = simulate(rule, p, q, given.trials, given.seed_count)
            print(f"| {rule.name} | {p:g} -> {q:g} | {once:.1%} | {within:.1%} | {bias:+.1f} |")


if __name__ == "__main__":
    main()
