"""Bradley-Terry ratings of simulated battles with known strengths: agreement, time and memory.

python benchmarks/difficulty.py [--items 3000] [--opponents 256] [--bootstraps 100]

256 opponents an item are 128 battles for each of them, as the paper counts. Strengths are normal, 200 Elo points wide.
"""

import argparse
import resource
import time

import numpy

from dsrl.data.difficulty_tiers import rating_tier
from dsrl.stages.difficulty.bradley_terry import MIDDLE, Outcomes, draw_pairs, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--opponents", type=int, default=256)
    parser.add_argument("--bootstraps", type=int, default=100)
    given = parser.parse_args()
    print("| items | battles | ties | rank correlation | same bin | at exactly 1000 | CPU seconds | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    for ties in (0.0, 0.01, 0.05):
        rng = numpy.random.default_rng(0)
        known = rng.normal(MIDDLE, 200, given.items)
        began = time.process_time()
        met = numpy.array(draw_pairs(given.items, given.opponents, 0))
        first, second = met[:, 0], met[:, 1]
        score = (rng.random(len(met)) < 1 / (1 + 10 ** ((known[second] - known[first]) / 400))).astype(float)
        score[rng.random(len(met)) < ties] = 0.5
        fought = Outcomes(first, second, score, given.items)
        found = rate(fought, ridge=0.01, bootstraps=given.bootstraps, seed=0).rating
        seconds = time.process_time() - began
        correlation = numpy.corrcoef(known.argsort().argsort(), found.argsort().argsort())[0, 1]
        same = numpy.mean([rating_tier(one) == rating_tier(other) for one, other in zip(known, found, strict=True)])
        stuck, memory = (found == MIDDLE).sum(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"| {given.items} | {len(met)} | {ties:.0%} | {correlation:.4f} | {same:.1%} | {stuck} | {seconds:.1f} | "
            f"{memory:.2f} GiB |"
        )


if __name__ == "__main__":
    main()
