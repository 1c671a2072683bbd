"""An export on disk: data, card and model; a Hugging Face data set, or rows for veRL."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsrl.cli.export import folder as export_folder
from dsrl.cli.export.card import card
from dsrl.cli.export.source import ExportSource, check_images, source_of_run
from dsrl.core.errors import UserError
from dsrl.data.sample import Rejected, Sample
from dsrl.pipeline.state import PipelineState
from dsrl.pipeline.store import write_json

if TYPE_CHECKING:
    from dsrl.pipeline.context import Context

ExportFormat = Literal["hf", "verl"]
SPLITS = ("train", "accepted", "rejected")
"""Samples selected for training; all samples, including these; rejected candidates."""


@dataclass(frozen=True)
class Written:
    """What an export wrote."""

    rows: dict[str, int]
    """Split -> rows."""
    images: int
    model: bool


def export_to(context: "Context", folder: Path) -> None:
    """`export_dir`: export the run that has just ended, replacing an earlier export."""
    export_folder.check_free(folder, replace=True)
    state = context.state
    if state is None or not (state.samples or state.trained):
        context.progress.warn("export_dir: this run source neither samples nor a model, so nothing was exported")
        return
    write(source_of_run(context.run_dir, context.store), folder, "hf", ("train", "accepted"), model=True)


def write(source: ExportSource, folder: Path, form: ExportFormat, splits: Collection[str], *, model: bool) -> Written:
    """Write an export into a folder. Raises `UserError` if images are missing (before anything is written), or if the
    folder can't be written."""
    parts = _parts(source, splits)
    shown = [row for rows in parts.values() for row in rows]
    check_images(source.images, shown)
    images = len({image.digest for row in shown for image in row.images})
    try:
        export_folder.begin(folder)
        counts = _verl(source, folder) if form == "verl" else _hf(source, folder, parts, images > 0)
        if source.samples:
            (folder / "README.md").write_text(card(source, form, counts, images), encoding="utf-8")
        if model and source.model is not None:
            shutil.copytree(source.model, folder / "model")
    except OSError as error:
        raise UserError(
            f"export: can't write to {folder}",
            got=error.strerror,
            next_step="give another out=FOLDER; everything is still in the store",
        ) from error
    written = Written(counts, images, model and source.model is not None)
    export_folder.finish(folder, {"of": source.name, "format": form, "rows": counts, "pictures": images})
    return written


def _parts(source: ExportSource, splits: Collection[str]) -> dict[str, tuple[Sample, ...] | tuple[Rejected, ...]]:
    """Rows by split, without empty splits."""
    found = {"train": source.selected_samples, "accepted": source.samples, "rejected": source.rejected}
    return {name: found[name] for name in SPLITS if name in splits and found[name]}  # type: ignore[misc]


def _hf(
    source: ExportSource, folder: Path, parts: dict[str, tuple[Sample, ...] | tuple[Rejected, ...]], with_images: bool
) -> dict[str, int]:
    from dsrl.cli.export.rows import accepted, rejected, schema
    from dsrl.cli.export.shards import write_split

    columns = schema(with_images)
    (folder / "data").mkdir()
    counts = {}
    for name, rows in parts.items():
        to_rows = rejected if name == "rejected" else accepted
        counts[name] = write_split(folder / "data", name, to_rows(rows, source, with_images), columns)  # type: ignore[arg-type]
    return counts


def _verl(source: ExportSource, folder: Path) -> dict[str, int]:
    """What was selected, and held-out samples for validation; beside them the grader, for `dsrl.cli.export.reward`."""
    from dsrl.stages.train.rows import sample_row, validation_rows
    from dsrl.stages.train.verl.rows import write_table

    task = source.task()
    state = PipelineState(task=task, samples=source.samples, selected=source.selected, control=source.control)
    train = tuple(sample_row(task, sample) for sample in source.selected_samples or source.samples)
    parts = {"train": train, "validation": validation_rows(state, VALIDATION, 0) if source.selected else ()}
    images = source.images.folder if any(row.images for rows in parts.values() for row in rows) else None
    (folder / "data").mkdir()
    for name, rows in parts.items():
        if rows:
            write_table(folder / "data" / f"{name}.parquet", rows, name, images)
    write_json(folder / "grader.json", task.answer.key_fields())
    return {name: len(rows) for name, rows in parts.items() if rows}


VALIDATION = 64
"""Samples held out for veRL's validation, neither selected nor in the control set."""
