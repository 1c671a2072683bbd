"""Reproducible chance: every draw is a hash of the request, so that all runs and clients get the same faults."""

import json
import math
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

from tests.support.faultserver.faults import Faults

SCALE = 1 << 64


def request_key(body: Mapping[str, Any]) -> str:
    """Digest of a request without `n` and `seed`, which only say how many replies and which ones."""
    same = {name: value for name, value in body.items() if name not in ("n", "seed")}
    return blake2b(json.dumps(same, sort_keys=True).encode(), digest_size=12).hexdigest()


def uniform(*parts: object) -> float:
    """A uniform number in (0, 1) from the hash of the parts."""
    value = blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(value) + 0.5) / SCALE


def service_seconds(faults: Faults, text: str) -> float:
    """Service time of a request whose last message is `text`."""
    if faults.latency == 0 or not (faults.sigma or faults.jitter):
        return faults.latency
    luck = uniform(faults.seed, "service", text)
    factor = 1 + faults.jitter * (2 * luck - 1)
    if faults.sigma:
        factor = math.exp(faults.sigma * NormalDist().inv_cdf(luck))
    return min(faults.longest, max(faults.shortest, faults.latency * factor))


def pick_fault(shares: Mapping[Any, float], kinds: Iterable[str], *parts: object) -> str | None:
    """Draw at most one of these faults by their shares; `parts` seed the draw."""
    if not shares:
        return None
    luck = uniform("fault", *parts)
    for kind in kinds:
        luck -= shares.get(kind, 0.0)
        if luck < 0:
            return kind
    return None
