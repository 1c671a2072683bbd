"""An artificial SynthRL run with images: seeds, harder variants, rejected attempts, and the counted replies."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import yaml
from PIL import Image as Pillow
from PIL import ImageDraw

from dsrl.core.component import Many, component
from dsrl.core.digest import digest
from dsrl.core.parquet import write_table
from dsrl.data.images import Gallery, Pixels
from dsrl.data.model import Model
from dsrl.data.sample import Image, Provenance, Rate, Rejected, Sample, Verdict, new_sample
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import save
from dsrl.pipeline.stage import Stage
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import Entry, Manifest
from dsrl.stages.score.measure import GradedRollout
from tests.data.images.images import encode
from tests.toys import context, write_model

ROLLOUTS = 4
TASK = Task(name="shapes", instruction="Count what a picture shows.", answer=Number(), pixels=Pixels(min_pixels=1))
COLOURS = ("crimson", "seagreen", "royalblue", "orange", "purple", "teal")


def shapes(number: int, size: tuple[int, int] = (96, 64)) -> bytes:
    """An image of `number` + 1 discs."""
    picture = Pillow.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for place in range(number + 1):
        x, y = 6 + 15 * (place % 6), 8 + 26 * (place // 6)
        draw.ellipse((x, y, x + 12, y + 12), fill=COLOURS[number % len(COLOURS)])
    return encode(picture)


def rate(correct: int) -> Rate:
    """A pass rate with `correct` of all replies."""
    return Rate(
        model="target", num_rollouts=ROLLOUTS, num_valid=ROLLOUTS, num_correct=correct, num_error=0, num_truncated=0,
        temperature=1.0, grader="number",
    )  # fmt: skip


def seed(number: int, images: tuple[Image, ...]) -> Sample:
    places = "<image>\n" * len(images)
    text = f"{places}How many discs of {COLOURS[number % len(COLOURS)]} are there?"
    return new_sample(TASK.name, text, str(number + 1), "seed", images=images).replace(score=rate(ROLLOUTS))


def variant(parent: Sample) -> Sample:
    said = (
        Verdict(verifier="QualityJudge", accepted=True, reason="9 of 10: two steps"),
        Verdict(verifier="PassBand", accepted=True, reason=f"1 of {ROLLOUTS}, the seed {ROLLOUTS} of {ROLLOUTS}"),
    )
    text = f"{parent.input} Take away the red ones, of which there are none, and say how many are left."
    return new_sample(
        TASK.name, text, parent.answer, "harder", images=parent.images, parent=parent, verdicts=said,
        provenance=Provenance(teacher="writer", index=0),
    ).replace(score=rate(2))  # fmt: skip


def replies(samples: tuple[Sample, ...], words: int) -> list[GradedRollout]:
    """As many correct replies as the sample's pass rate says, of `words` words; wrong ones have one word more."""
    return [
        GradedRollout(
            sample=sample.id, index=number, text=f"{'one ' * (words - 1 + (not right))}\n\n#### {sample.answer}",
            correct=right, format_ok=True, parsed=sample.answer, finish_reason="stop", error=None,
        )
        for sample in samples
        for number in range(ROLLOUTS)
        for right in (number < (sample.score.num_correct if sample.score else 0),)
    ]  # fmt: skip


def make_study(folder: Path, count: int = 4) -> tuple[PipelineState, Context]:
    """A run in `folder`. Every second seed has a variant; the last seed has no image, the one before it two."""
    where = context(folder)
    gallery: Gallery = where.gallery(TASK)
    pictures = [gallery.put(shapes(number)) for number in range(count)]
    shown = [(picture,) for picture in pictures[:-2]] + [tuple(pictures[-2:]), ()]
    seeds = tuple(seed(number, images) for number, images in enumerate(shown))
    variants = tuple(variant(one) for one in seeds[::2])
    rejected = tuple(
        Rejected(stage="rewrite", reason="too hard", input=one.input, images=one.images, answer=one.answer,
                 parent_id=one.id)
        for one in seeds[1::2]
    )  # fmt: skip
    score, rewrite = folder / "score.parquet", folder / "rewrite.parquet"
    write_table(score, replies(seeds, 5), GradedRollout)
    write_table(rewrite, replies(variants, 9), GradedRollout)
    where.metrics.update(
        name=TASK.name, task=TASK.name, stages={"rewrite": figures(len(seeds), len(variants))}, rows={}
    )
    samples = seeds + variants
    state = PipelineState(
        task=TASK,
        samples=samples,
        rejected=rejected,
        selected=tuple(sample.id for sample in (*variants, seeds[0], seeds[-1])),
        control=tuple(sample.id for sample in seeds[:2]),
        files={"score/rollouts.parquet": score, "rewrite/rollouts.parquet": rewrite},
    )
    return state, where


def figures(seeds: int, variants: int) -> dict[str, object]:
    """Figures of the stage `rewrite`."""
    return {
        "seeds": seeds, "seed_counts": [0, 0, 0, 0, seeds], "eligible": seeds, "variants": variants,
        "attempts": seeds, "mean_seed": 4.0, "mean_fresh": 2.0, "mean_accepting": 1.0,
        "funnel": [["a readable question", seeds], ["a new one that hides its answer", seeds],
                   ["QualityJudge", seeds], ["PassBand", variants], ["PassBand 2", variants]],
    }  # fmt: skip


CONFIG = {
    "task": {
        "_target_": "dsrl.data.Task",
        "name": TASK.name,
        "instruction": TASK.instruction,
        "output_format": None,
        "answer": {"kind": "number"},
        "demos": ["a file that is not read: demos.jsonl"],
        "gold": {"path": "someone/shapes", "revision": "0123", "split": "train", "licence": "CC-BY-4.0"},
        "test": {"path": "someone/shapes", "split": "test", "licence": "CC-BY-4.0"},
    },
    "teacher": {"model": "writer-1"},
    "model": {"name": "target"},
    "pipeline": {
        "rewrite": {"_target_": "dsrl.stages.rewrite.HarderVariants", "attempts": 8, "stop": "first", "verify": []},
        "select": {"_target_": "dsrl.stages.select.Augment", "m": 3},
    },
    "plugins": [],
    "seed": 0,
    "store": "store",
}
"""The parts of a run's config that an export reads."""


@component("tests.pictured.Wrote")
class Wrote(Stage):
    """A stage that wrote the fields `puts`."""

    name: ClassVar[str] = "any"
    inputs = ()

    puts: Many[str]

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.puts

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        return state


def stored_run(folder: Path, count: int = 4, *, model: bool = True) -> tuple[Path, PipelineState]:
    """The run of `make_study` on disk: run folder with config and metrics, and its store entries."""
    state, where = make_study(folder, count)
    bare = PipelineState(task=TASK)
    keep(where, "rewrite", ("samples",), bare, state)
    keep(where, "select", ("selected", "control"), bare, state)
    if model:
        trained = Model(name="target+grpo", path="model")
        keep(where, "train", ("trained",), bare, replace(state, trained=trained, rejected=()))
    where.metrics.update(
        decontaminate={"policy": "drop", "samples": 6, "matched": 1, "dropped": 1, "kinds": {"same": 1}},
        status="finished",
        evaluate={"base": {"n": 9, "pass_at_1": 0.5, "low": 0.4, "high": 0.6}, "trained": {"n": 9, "pass_at_1": 0.75,
                  "low": 0.6, "high": 0.9}},
    )  # fmt: skip
    where.write_metrics()
    (where.run_dir / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "store": str(where.store.root)}))
    (where.run_dir / "run.json").write_text(json.dumps({"folder": str(folder), "dsrl": "0"}))
    where.close()
    return where.run_dir, state


def keep(where: Context, name: str, puts: tuple[str, ...], before: PipelineState, after: PipelineState) -> Entry:
    """Store an entry with the fields that the stage `name` wrote."""
    key = digest([name, puts], 20)

    def make(scratch: Path) -> Manifest:
        save(scratch, Wrote(puts=puts), before, after if name == "rewrite" else replace(after, rejected=()))
        if "trained" in puts:
            write_model(scratch / "model", 2)
        return Manifest(
            stage=name, key=key, parts={}, parents={}, figures={}, rows={}, calls={}, seconds=0.0, created=time.time()
        )

    entry, _ = where.store.get_or_create(name, key, make)
    where.metrics.setdefault("keys", {})[name] = key
    rows = {"in": 4, "out": len(after.samples), "rejected": {"too hard": len(after.rejected)}}
    where.metrics["rows"] |= {name: rows} if name == "rewrite" else {}
    return entry
