"""Savings of scoring in waves (`score=sequential`), and agreement of the selection.

    python benchmarks/waves.py [--runs 20] [--error 0.01] [--waves 8 16 32] [--table score/rollouts.parquet --m 300]

Simulates pass rates of several distributions, N samples each, 64 replies, and compares the m samples selected after all
replies with those selected when samples stop early. `--table` uses the rollouts of a real scoring in the store instead.

`overlap` is the share of the full selection that is also selected in waves. A sample with the same full count as the
last selected one counts as selected, because ties are broken at random. `again` is the same for two full counts with
their own replies: the effect of chance alone. Prints Markdown.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from dsrl.core.parquet import read_table
from dsrl.stages.score.early_stopping import PartialCount, SelectionGoal, samples_to_stop
from dsrl.stages.score.measure import GradedRollout

FULL = 64
Draw = Callable[[random.Random], float]
RATES: dict[str, Draw] = {
    "beta(0.5, 0.5): many never or always": lambda rng: rng.betavariate(0.5, 0.5),
    "beta(2, 2): most in the middle": lambda rng: rng.betavariate(2, 2),
    "beta(5, 1): an easy task": lambda rng: rng.betavariate(5, 1),
    "beta(1, 5): a hard task": lambda rng: rng.betavariate(1, 5),
    "a quarter never, a quarter always, rest uniform": lambda rng: rng.choice((0.0, 1.0, rng.random(), rng.random())),
}
SIZES = ((1000, 500), (1000, 300), (1500, 500), (1000, 100))
Bits = Sequence[bool]


@dataclass(frozen=True)
class Result:
    """Result of one selection."""

    drawn: float
    """Share of all replies."""
    overlap: float
    again: float | None
    expected_missed: float
    """Expected misses, as a share of m."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--error", type=float, default=0.01)
    parser.add_argument("--waves", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--reserve", type=float, default=0.0)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--m", type=int, default=300)
    given = parser.parse_args()
    head = ["pass rates", "N", "m", "replies drawn", "overlap", "lowest", "again", "missed", "missed, expected"]
    rows = list(real(given) if given.table else simulated(given))
    for line in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(line) + " |")


def simulated(given: argparse.Namespace) -> list[list[str]]:
    found = []
    for name, draw in RATES.items():
        for total, m in SIZES:
            results = []
            for seed in range(given.runs):
                rng = random.Random(f"{name} {total} {m} {seed}")
                rates = [draw(rng) for _ in range(total)]
                one, two = ([[rng.random() < rate for _ in range(FULL)] for rate in rates] for _ in range(2))
                results.append(compared(one, two, m, given))
            found.append(row(name, total, m, results))
    return found


def real(given: argparse.Namespace) -> list[list[str]]:
    replies: dict[str, list[bool]] = {}
    for one in sorted(read_table(given.table, GradedRollout), key=lambda rollout: rollout.index):
        replies.setdefault(one.sample, []).append(one.correct)
    rows = list(replies.values())
    return [row(str(given.table), len(rows), m, [compared(rows, None, m, given)]) for m in (given.m, given.m // 3)]


def compared(replies: Sequence[Bits], others: Sequence[Bits] | None, m: int, given: argparse.Namespace) -> Result:
    full = [sum(own) / len(own) for own in replies]
    counts, risks = waves(replies, m, given)
    early = [count.correct / count.valid for count in counts]
    drawn = sum(count.valid for count in counts) / sum(map(len, replies))
    again = None if others is None else overlap(full, [sum(own) / len(own) for own in others], m)
    return Result(drawn, overlap(full, early, m), again, sum(risks.values()) / m)


def waves(replies: Sequence[Bits], m: int, given: argparse.Namespace) -> tuple[list[PartialCount], dict[int, float]]:
    """Stop samples as `score.Sequential` does."""
    goal = SelectionGoal(round(m * (1 + given.reserve)), 0.0, 1.0, given.error)
    most, sums = len(replies[0]), [list(accumulate(own, initial=0)) for own in replies]
    counts = [PartialCount(0, 0, most)] * len(replies)
    risks: dict[int, float] = {}
    ends = [*(end for end in given.waves if end < most), most]
    for number, end in enumerate(ends, 1):
        going = [place for place in range(len(replies)) if place not in risks]
        for place in going:
            counts[place] = PartialCount(sums[place][end], end, most - end)
        if end < most:
            risks |= samples_to_stop(counts, going, goal, sum(risks.values()), number / (len(ends) - 1))
    return counts, risks


def overlap(full: Sequence[float], other: Sequence[float], m: int) -> float:
    """Share of the selection by `full` that `other` also selects."""
    right, chosen = lowest(full, m), lowest(other, m)
    last = max(full[place] for place in right)
    same = sum(0 < full[place] <= last for place in chosen)
    return min(1.0, same / len(right))


def lowest(rates: Sequence[float], m: int) -> list[int]:
    band = [place for place, rate in enumerate(rates) if 0 < rate < 1]
    return sorted(band, key=lambda place: (rates[place], place))[:m]


def row(name: str, total: int, m: int, results: Sequence[Result]) -> list[str]:
    again = [result.again for result in results if result.again is not None]
    overlaps = [result.overlap for result in results]
    return [
        name,
        str(total),
        str(m),
        f"{statistics.mean(result.drawn for result in results):.0%}",
        f"{statistics.mean(overlaps):.2%}",
        f"{min(overlaps):.2%}",
        f"{statistics.mean(again):.1%}" if again else "",
        f"{1 - statistics.mean(overlaps):.2%}",
        f"{statistics.mean(result.expected_missed for result in results):.2%}",
    ]


if __name__ == "__main__":
    main()
