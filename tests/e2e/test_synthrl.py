"""SynthRL from end to end on the quickstart's stories, with and without a kill."""

import signal
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from dsrl.stages.score.measure import GradedRollout
from tests.e2e.runs import SMALL, Place, metrics, requests

pytestmark = pytest.mark.e2e

TINY = (
    "experiment=quickstart_synthrl",
    *(option for option in SMALL if option.startswith(("model.prepare", "rl.", "rollout.", "evaluate", "task.test"))),
    "tracking.enabled=false",
    "seeds.size=32",
    "rollouts=4",
    "rewrite.min_correct=1",
    "verify.1.min_correct=1",
    "verify.1.margin=0",
)


def test_a_killed_run_ends_with_the_same_bytes_and_pays_nothing_twice(cache: Path, tmp_path: Path) -> None:
    places = [Place(tmp_path / name, cache) for name in ("whole", "killed")]
    for place in places:
        place.folder.mkdir()
    whole = places[0].run(*TINY)
    killed = places[1]

    def in_the_middle() -> bool:
        return killed.making("rewrite") and killed.paid() > 180

    killed.interrupted(*TINY, "hydra.run.dir=runs/killed", when=in_the_middle, sign=signal.SIGKILL)
    again = killed.run(*TINY)
    assert again["keys"] == whole["keys"]
    assert requests(again) < requests(whole)
    for name in ("samples.parquet", "rejected.parquet", "rollouts.parquet"):
        entries = [place.entry("rewrite", found) / name for place, found in zip(places, (whole, again), strict=True)]
        assert entries[0].read_bytes() == entries[1].read_bytes()
    check(places[0], whole)


def check(place: Place, found: dict[str, Any]) -> None:
    """Check samples, figures and report of a finished run."""
    assert found["status"] == "finished"
    samples = read_table(place.entry("rewrite", found) / "samples.parquet", Sample)
    variants = [sample for sample in samples if sample.origin == "harder"]
    by_id = {sample.id: sample for sample in samples}
    assert len(by_id) == len(samples)
    assert variants
    for variant in variants:
        assert variant.parent_id is not None
        assert variant.answer == by_id[variant.parent_id].answer
        assert variant.score is not None
        assert variant.score.num_valid == 4
    rewriting = found["stages"]["rewrite"]
    assert rewriting["attempts"] == len(variants) + sum(found["rows"]["rewrite"]["rejected"].values())
    assert found["select"]["selected"] == 32 + len(variants)
    assert found["train"]["steps"] == 4
    page = next((place.folder / "runs").glob("*/report.html")).read_text(encoding="utf-8")
    assert "Seeds and harder variants" in page
    assert "From attempts to variants" in page
    gates = [count for _, count in rewriting["funnel"]]
    assert rewriting["attempts"] >= gates[0]
    assert gates == sorted(gates, reverse=True)
    assert gates[-1] == len(variants)
    replies = read_table(place.entry("rewrite", found) / "rollouts.parquet", GradedRollout)
    assert {row.sample for row in replies} == {variant.id for variant in variants}
    assert found["replies"]["variants"]["replies"] == 4 * len(variants)
    assert metrics(next((place.folder / "runs").glob("*"))) == found
