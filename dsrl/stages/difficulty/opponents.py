"""Who meets whom: every item the same number of opponents, drawn by a seed, and all items connected."""

import random

from dsrl.core.digest import digest


def pairs(items: int, opponents: int, seed: int) -> list[tuple[int, int]]:
    """Distinct pairs (shown first, shown second), in which each item has about so many opponents, or all others.

    The items stand in a circle in seeded order, and each meets those at certain distances: 1, so that all are
    connected, and others drawn by the seed. More opponents add pairs and change none.
    """
    rng = random.Random(digest([seed, "battles", items]))
    circle = rng.sample(range(items), items)
    half = (items - 1) // 2
    distances = [1, *rng.sample(range(2, half + 1), max(0, half - 1))]
    if items % 2 == 0 and items > 2:
        distances.append(items // 2)
    found: list[tuple[int, int]] = []
    for distance in distances[: -(-opponents // 2)]:
        # Those that stand opposite each other would be met from both sides.
        starts = range(items // 2 if 2 * distance == items else items)
        found += [(circle[place], circle[(place + distance) % items]) for place in starts]
    order = random.Random(digest([seed, "order", items]))
    return [pair if order.random() < 0.5 else (pair[1], pair[0]) for pair in found]
