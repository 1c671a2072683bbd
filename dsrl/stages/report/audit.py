"""A hand check of labels: rows drawn from every level of agreement, and what their judgements say of all rows."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dsrl.data.sample import Sample
from dsrl.stages.report.labels import agreement
from dsrl.stages.report.stratified import Stratum, stratified

Verdict = Literal["right", "wrong", "unclear"]
LEVELS = ((1.0, "all agree"), (0.9, "90 % and more"), (0.75, "75 to 90 %"), (0.5, "50 to 75 %"), (0.0, "under half"))
"""Least share of the answers received that agree with the label -> name of the stratum."""
UNVOTED = "no votes"


def stratum(sample: Sample) -> str:
    """The level of agreement behind the sample's label."""
    share = agreement(sample.votes) if sample.votes else None
    return UNVOTED if share is None else next(name for least, name in LEVELS if share >= least)


def sizes(samples: Sequence[Sample]) -> dict[str, int]:
    """Rows of every stratum that has some, the surest first."""
    counts = Counter(map(stratum, samples))
    return {name: counts[name] for name in [*(name for _, name in LEVELS), UNVOTED] if counts[name]}


def draw(samples: Sequence[Sample], rows: int, seed: int) -> list[Sample]:
    """A random draw within each stratum, shuffled, so that whoever judges can't tell the strata by their place."""
    rng = random.Random(seed)
    drawn: list[Sample] = []
    for name, wanted in shared(sizes(samples), rows).items():
        drawn += rng.sample([sample for sample in samples if stratum(sample) == name], wanted)
    rng.shuffle(drawn)
    return drawn


def shared(strata: Mapping[str, int], rows: int) -> dict[str, int]:
    """Rows to draw from each stratum: half of them in equal parts, half by size, and never more than there are."""
    whole = sum(strata.values())
    rows = min(rows, whole)
    wanted = {name: rows / 2 / len(strata) + rows / 2 * size / whole for name, size in strata.items()}
    given = {name: min(size, int(wanted[name])) for name, size in strata.items()}
    while sum(given.values()) < rows:
        open_ones = [name for name, size in strata.items() if given[name] < size]
        given[max(open_ones, key=lambda name: wanted[name] - given[name])] += 1
    return given


@dataclass(frozen=True)
class Finding:
    """What the judgements say."""

    judged: int
    unclear: int
    """Rows whose judge couldn't tell; left out of the estimate."""
    blank: int
    estimate: float
    """Share of wrong labels among all rows."""
    low: float
    high: float
    strata: tuple[Stratum, ...]
    unseen: tuple[str, ...]
    """Strata without a judged row, about which nothing is known."""

    def record(self, source: str) -> dict[str, Any]:
        """For `audit.json` and `metrics.json`; `source` is the stage and key of the audited entry."""
        rows = [
            {"stratum": part.name, "rows": part.size, "judged": part.drawn, "wrong": part.faults}
            | ({"share": part.share, "low": part.interval[0], "high": part.interval[1]} if part.drawn else {})
            for part in self.strata
        ]
        return {
            "source": source,
            "judged": self.judged,
            "unclear": self.unclear,
            "blank": self.blank,
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "strata": rows,
            "unseen": list(self.unseen),
        }


def judge(samples: Sequence[Sample], verdicts: Mapping[str, Verdict | None]) -> Finding:
    """The share of wrong labels, from the verdicts on some samples by their id; None: not judged yet. Raises ValueError
    if none is judged."""
    by_id = {sample.id: sample for sample in samples}
    drawn = Counter(stratum(by_id[name]) for name, verdict in verdicts.items() if verdict in ("right", "wrong"))
    wrong = Counter(stratum(by_id[name]) for name, verdict in verdicts.items() if verdict == "wrong")
    strata = tuple(Stratum(name, size, drawn[name], wrong[name]) for name, size in sizes(samples).items())
    found = stratified(strata)
    given = Counter(verdicts.values())
    return Finding(
        judged=drawn.total(),
        unclear=given["unclear"],
        blank=given[None],
        estimate=found.value,
        low=found.low,
        high=found.high,
        strata=strata,
        unseen=tuple(part.name for part in strata if not part.drawn),
    )


def place(store: Path, key: str) -> Path:
    """Where the finding about an entry of the store rests."""
    return store / "audits" / f"{key}.json"


def audited(metrics: Mapping[str, Any], store: Path) -> dict[str, Any] | None:
    """The finding about the samples of this run, of the latest stage that has one."""
    places = (place(store, key) for key in reversed(metrics.get("keys", {}).values()))
    found = next((path for path in places if path.is_file()), None)
    return None if found is None else json.loads(found.read_text(encoding="utf-8"))
