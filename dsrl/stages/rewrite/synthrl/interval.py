"""How sure two pass counts make us that one question is harder than another."""

import math
from statistics import NormalDist

from dsrl.data.sample import Rate


def wilson(rate: Rate, z: float) -> tuple[float, float]:
    """Wilson's score interval of a pass rate, `z` standard deviations to each side."""
    n, share = rate.num_valid, rate.num_correct / rate.num_valid
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - reach, middle + reach


def least_drop(seed: Rate, variant: Rate, confidence: float) -> float:
    """Lower bound of how far the pass rate fell from seed to variant, with Newcombe's interval of a difference (1998,
    method 10), two-sided at `confidence`; above 0 the variant is harder as far as chance goes."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    first, second = seed.num_correct / seed.num_valid, variant.num_correct / variant.num_valid
    low, high = wilson(seed, z)[0], wilson(variant, z)[1]
    return first - second - math.hypot(first - low, high - second)
