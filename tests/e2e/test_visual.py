"""SynthRL with images from end to end, with and without kills during rewriting and training."""

import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dsrl.core.parquet import read_table
from dsrl.data.sample import Sample
from tests.e2e.runs import SMALL, Place

pytestmark = pytest.mark.e2e

TINY = (
    "experiment=quickstart_visual",
    *(option for option in SMALL if option.startswith(("rl.", "rollout.", "evaluate", "task.test", "tracking"))),
    "train.checkpoint_every=2",
    *(f"model.prepare.{key}=200" for key in ("steps", "first_look", "last_look")),
    "model.prepare.min_worked=0.0",
    "model.prepare.min_gap=-1.0",
    "model.prepare.min_accuracy=0.0",
    "seeds.size=24",
    "rollouts=4",
    "rewrite.min_correct=1",
    "verify.1.min_correct=1",
    "verify.1.margin=0",
)
TRAINED = ("model.safetensors", "processor_config.json", "tokenizer.json", "chat_template.jinja")


def test_a_run_killed_twice_ends_with_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    places = [Place(tmp_path / name, cache) for name in ("whole", "killed")]
    for place in places:
        place.folder.mkdir()
    whole, killed = places[0].run(*TINY), places[1]

    def rewriting() -> bool:
        return killed.making("rewrite") and killed.paid() > 150

    def training() -> bool:
        return any((killed.store / "work").rglob("checkpoint-2/whole.json"))

    for number, moment in enumerate((rewriting, training)):
        killed.interrupted(*TINY, f"hydra.run.dir=runs/killed{number}", when=moment, sign=signal.SIGKILL)
    again = killed.run(*TINY)
    assert again["keys"] == whole["keys"]
    for stage, names in (
        ("rewrite", ("samples.parquet", "rejected.parquet")),
        ("train", tuple(trained(places[0], whole))),
    ):
        for name in names:
            files = [place.entry(stage, found) / name for place, found in zip(places, (whole, again), strict=True)]
            assert files[0].read_bytes() == files[1].read_bytes(), name
    check(places[0], whole)


def trained(place: Place, found: dict[str, Any]) -> list[str]:
    """Files of the trained model, including its processor."""
    entry = place.entry("train", found)
    names = [str(next(entry.rglob(name)).relative_to(entry)) for name in TRAINED]
    assert len(names) == len(TRAINED)
    return names


def check(place: Place, found: dict[str, Any]) -> None:
    """Check samples, images and report of a finished run."""
    assert found["status"] == "finished"
    samples = read_table(place.entry("rewrite", found) / "samples.parquet", Sample)
    by_id = {sample.id: sample for sample in samples}
    variants = [sample for sample in samples if sample.origin == "harder"]
    assert variants
    for variant in variants:
        seed = by_id[str(variant.parent_id)]
        assert (variant.answer, variant.images) == (seed.answer, seed.images)
        with Image.open(place.store / "images" / variant.images[0].path) as picture:
            assert picture.size == (48, 48)
    assert found["select"]["selected"] == 24 + len(variants)
    assert found["train"]["steps"] == 4
    page = next((place.folder / "runs").glob("*/report.html")).read_text(encoding="utf-8")
    assert "Seeds and harder variants" in page
