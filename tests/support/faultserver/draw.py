"""Chance that repeats itself: every draw is a hash of what is asked, so that runs and clients meet the same luck."""

import json
import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

from tests.support.faultserver.faults import Faults

Body = Mapping[str, Any]
NORMAL = NormalDist()
SCALE = 1 << 64


def key(body: Body) -> str:
    """Names a request without its `n` and `seed`, which only say how many replies and which ones."""
    same = {name: value for name, value in body.items() if name != "n" and name != "seed"}
    return blake2b(json.dumps(same, sort_keys=True).encode(), digest_size=12).hexdigest()


def uniform(*parts: object) -> float:
    """Evenly in (0, 1), the same for the same parts."""
    drawn = blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(drawn) + 0.5) / SCALE


def service(faults: Faults, text: str) -> float:
    """Seconds that a request whose last message this is takes: the same whatever else a client sends with it."""
    if faults.latency == 0:
        return 0.0
    if not (faults.sigma or faults.jitter):
        return faults.latency
    luck = uniform(faults.seed, "service", text)
    spread = math.exp(faults.sigma * NORMAL.inv_cdf(luck)) if faults.sigma else 1 + faults.jitter * (2 * luck - 1)
    return min(faults.longest, max(faults.shortest, faults.latency * spread))


def fault(shares: Mapping[Any, float], kinds: Iterable[str], *parts: object) -> str | None:
    """Which of these faults happens, if any."""
    if not shares:
        return None
    luck = uniform("fault", *parts)
    for kind in kinds:
        luck -= shares.get(kind, 0.0)
        if luck < 0:
            return kind
    return None
