"""How often 95 % intervals contain the true value, by simulation, compared with the percentile bootstrap.

    python benchmarks/coverage.py [--simulations 2000] [--resamples 1000]

Prints Markdown. `tests/stages/evaluate/test_statistics.py` holds a part of this.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy

from dsrl.core.statistics import wilson_interval
from dsrl.stages.evaluate.difference import mean_difference, paired_gains
from dsrl.stages.evaluate.statistics import DIFFERENCES, SHARES, Units, mean_interval

Draw = Callable[[numpy.random.Generator, tuple[int, int]], numpy.ndarray]
SIZES = (10, 30, 100, 400)


def rates(mean: float, spread: float, replies: int) -> Draw:
    """Pass rates of items whose difficulty is Beta distributed. With small `spread` more items are solved always or
    never."""
    return lambda generator, shape: (
        generator.binomial(replies, generator.beta(mean * spread, (1 - mean) * spread, shape)) / replies
    )


def gains(share: float) -> Draw:
    """Pass rates of two models on the same items: half of the items gain this share of their failures."""

    def draw(generator: numpy.random.Generator, shape: tuple[int, int]) -> numpy.ndarray:
        before = generator.beta(0.5, 0.5, shape)
        after = before + share * (1 - before) * (generator.random(shape) < 0.5)
        return (generator.binomial(8, after) - generator.binomial(8, before)) / 8

    return draw


def flips(gained: float, lost: float) -> Draw:
    """Greedy results of two models."""
    chances = [gained, lost, 1 - gained - lost]
    return lambda generator, shape: generator.choice([1.0, -1.0, 0.0], p=chances, size=shape)


CASES: dict[str, tuple[Draw, float, tuple[float, float]]] = {
    "pass@1 of 0.5, 8 replies": (rates(0.5, 1, 8), 0.5, SHARES),
    "pass@1 of 0.5, 1 reply": (rates(0.5, 2, 1), 0.5, SHARES),
    "pass@1 of 0.1, 8 replies": (rates(0.1, 3, 8), 0.1, SHARES),
    "pass@1 of 0.95, 8 replies": (rates(0.95, 4, 8), 0.95, SHARES),
    "pass@1 of 0.9, 1 reply": (rates(0.9, 10, 1), 0.9, SHARES),
    "pass@1 of 0.98, 1 reply": (rates(0.98, 50, 1), 0.98, SHARES),
    "pass@1 of 0.02, 8 replies": (rates(0.02, 5, 8), 0.02, SHARES),
    "gain of 10 points, 8 replies": (gains(0.4), 0.1, DIFFERENCES),
    "no gain, 8 replies": (gains(0.0), 0.0, DIFFERENCES),
    "greedy, 30 % gained, 10 % lost": (flips(0.3, 0.1), 0.2, DIFFERENCES),
    "greedy, 10 % gained, 5 % lost": (flips(0.1, 0.05), 0.05, DIFFERENCES),
    "greedy, 3 % gained, 1 % lost": (flips(0.03, 0.01), 0.02, DIFFERENCES),
}


def percentile(row: numpy.ndarray, resamples: int, generator: numpy.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap, which most evaluation tools print."""
    levels, counts = numpy.unique(row, return_counts=True)
    means = generator.multinomial(len(row), counts / len(row), size=resamples) @ levels / len(row)
    low, high = numpy.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def rows(simulations: int, resamples: int) -> Iterator[str]:
    for name, (draw, truth, ends) in CASES.items():
        for size in SIZES:
            generator = numpy.random.default_rng(size)
            table = draw(generator, (simulations, size))
            ours = [mean_interval(Units.of(row), resamples, number, ends) for number, row in enumerate(table)]
            plain = [percentile(row, resamples, generator) for row in table]
            held = fmean(each.low - 1e-9 <= truth <= each.high + 1e-9 for each in ours)
            theirs = fmean(low - 1e-9 <= truth <= high + 1e-9 for low, high in plain)
            wary = fmean(Units.of(row).is_sparse for row in table)
            width = fmean(each.high - each.low for each in ours)
            yield f"| {name} | {size} | {held:.1%} | {wary:.0%} | {theirs:.1%} | {100 * width:.1f} |"


def exact(share: float, trials: int) -> float:
    """Exact coverage of Wilson's interval."""
    chances = [math.comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in range(trials + 1)]
    found = [wilson_interval(n / trials, trials) for n in range(trials + 1)]
    return sum(chance for chance, (low, high) in zip(chances, found, strict=True) if low <= share <= high)


NULLS = {
    "300 items": (300, 1, "plain"),
    "40 groups of 10 siblings": (40, 10, "siblings"),
    "12 groups of 10 siblings": (12, 10, "siblings"),
    "60 questions, each 5 times": (60, 5, "copies"),
}
"""Units, items of each unit, and how alike these are: siblings share their fate in 9 of 10 cases, copies in all."""


def verdicts(kind: str, units: int, items: int, generator: numpy.random.Generator) -> numpy.ndarray:
    """Whether a model solves each item, shape (units * items,); half of the units are solved."""
    fate = numpy.repeat(generator.random(units) < 0.5, items)
    own = generator.random(units * items) < 0.5
    return fate if kind != "siblings" else numpy.where(generator.random(units * items) < 0.9, fate, own)


def null_rows(simulations: int, resamples: int) -> Iterator[str]:
    """Comparisons of two models without a true difference, over units and (as a check) by scipy's t-test over units."""
    from scipy.stats import ttest_1samp

    for name, (units, items, kind) in NULLS.items():
        for missing in (0.0, 0.2):
            generator = numpy.random.default_rng(units + items)
            places = numpy.repeat(numpy.arange(units), items).tolist()
            found, items_only, student = [], [], []
            for number in range(simulations):
                one, two = (verdicts(kind, units, items, generator).astype(float) for _ in range(2))
                lost = generator.random((2, units * items)) < missing
                before, after = ([None if gone else value for value, gone in zip(each, away, strict=True)]
                                 for each, away in zip((one, two), lost.tolist(), strict=True))  # fmt: skip
                found.append(mean_difference(before, after, places, resamples, number))
                items_only.append(mean_difference(before, after, (), resamples, number)["p_value"] < 0.05)
                gains = paired_gains(before, after, places)
                student.append(ttest_1samp(gains.linearised, 0.0).pvalue < 0.05)
            rejected = fmean(one["p_value"] < 0.05 for one in found)
            covered = fmean(one["low"] <= 1e-12 and one["high"] >= -1e-12 for one in found)
            yield (
                f"| {name} | {missing:.0%} | {rejected:.1%} | {covered:.1%} | {fmean(student):.1%} | "
                f"{fmean(items_only):.1%} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--only-comparisons", action="store_true")
    arguments = parser.parse_args()
    print("| two equal models on | replies missing | p < 0.05 | interval holds 0 | t-test over units | over items |")
    print("|---|---|---|---|---|---|")
    for row in null_rows(arguments.simulations, arguments.resamples):
        print(row, flush=True)
    if arguments.only_comparisons:
        return
    print()
    print("| what is measured | items | held | of these cautious | percentile bootstrap | width, points |")
    print("|---|---|---|---|---|---|")
    for row in rows(arguments.simulations, arguments.resamples):
        print(row, flush=True)
    print("\n| Wilson, share of | " + " | ".join(f"{size} items" for size in SIZES) + " |")
    print("|---|" + "---|" * len(SIZES))
    for share in (0.5, 0.7, 0.9, 0.95, 0.98):
        print(f"| {share} | " + " | ".join(f"{exact(share, size):.1%}" for size in SIZES) + " |")


if __name__ == "__main__":
    main()
