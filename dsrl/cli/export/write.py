"""An export on disk: data, card and model; a Hugging Face data set, or rows for veRL."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsrl.cli.export import folder as place
from dsrl.cli.export.card import card
from dsrl.cli.export.source import Made, check_pictures, of_run
from dsrl.core.errors import UserError
from dsrl.data.sample import Rejected, Sample
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import write_json

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context

Format = Literal["hf", "verl"]
SPLITS = ("train", "accepted", "rejected")
"""Selected for training; all samples, those among them; candidates that were turned down."""


@dataclass(frozen=True)
class Written:
    """What came of it."""

    rows: dict[str, int]
    """Split -> rows."""
    pictures: int
    model: bool


def export_to(context: "Context", folder: Path) -> None:
    """`export_dir`: what a run made that has just ended; an earlier export there is replaced."""
    place.check_free(folder, replace=True)
    state = context.state
    if state is None or not (state.samples or state.trained):
        context.progress.warn("export_dir: this run made neither samples nor a model, so nothing was copied")
        return
    write(of_run(context.run_dir, context.store), folder, "hf", ("train", "accepted"), model=True)


def write(made: Made, folder: Path, form: Format, splits: Collection[str], *, model: bool) -> Written:
    """Raises `UserError` where pictures are gone, before anything is written, and where nothing can be."""
    parts = _parts(made, splits)
    shown = [row for rows in parts.values() for row in rows]
    check_pictures(made.images, shown)
    pictures = len({image.digest for row in shown for image in row.images})
    try:
        place.begin(folder)
        counts = _verl(made, folder) if form == "verl" else _hf(made, folder, parts, pictures > 0)
        if made.samples:
            (folder / "README.md").write_text(card(made, form, counts, pictures), encoding="utf-8")
        if model and made.model is not None:
            shutil.copytree(made.model, folder / "model")
    except OSError as error:
        raise UserError(
            f"export: can't write to {folder}", got=error.strerror, next_step="everything is in the store, too"
        ) from error
    written = Written(counts, pictures, model and made.model is not None)
    place.finish(folder, {"of": made.name, "format": form, "rows": counts, "pictures": pictures})
    return written


def _parts(made: Made, splits: Collection[str]) -> dict[str, tuple[Sample, ...] | tuple[Rejected, ...]]:
    """Rows by split; empty ones are left out."""
    found = {"train": made.chosen, "accepted": made.samples, "rejected": made.rejected}
    return {name: found[name] for name in SPLITS if name in splits and found[name]}  # type: ignore[misc]


def _hf(
    made: Made, folder: Path, parts: dict[str, tuple[Sample, ...] | tuple[Rejected, ...]], pictures: bool
) -> dict[str, int]:
    from dsrl.cli.export.rows import accepted, rejected, schema
    from dsrl.cli.export.shards import write_split

    columns = schema(pictures)
    (folder / "data").mkdir()
    counts = {}
    for name, rows in parts.items():
        told = rejected(rows, made, pictures) if name == "rejected" else accepted(rows, made, pictures)  # type: ignore[arg-type]
        counts[name] = write_split(folder / "data", name, told, columns)
    return counts


def _verl(made: Made, folder: Path) -> dict[str, int]:
    """What was selected, and held-out samples for validation; beside them the grader, for `dsrl.cli.export.reward`."""
    from dsrl.stages.train.rows import sample_row, validation_rows
    from dsrl.stages.train.verl.rows import write_table

    task = made.task()
    state = PipelineState(task=task, samples=made.samples, selected=made.selected, control=made.control)
    train = tuple(sample_row(task, sample) for sample in made.chosen or made.samples)
    parts = {"train": train, "validation": validation_rows(state, VALIDATION, 0) if made.selected else ()}
    images = made.images.folder if any(row.images for rows in parts.values() for row in rows) else None
    (folder / "data").mkdir()
    for name, rows in parts.items():
        if rows:
            write_table(folder / "data" / f"{name}.parquet", rows, name, images)
    write_json(folder / "grader.json", task.answer.key_fields())
    return {name: len(rows) for name, rows in parts.items() if rows}


VALIDATION = 64
"""Samples held out for veRL's validation, neither selected nor in the control set."""
