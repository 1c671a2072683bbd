"""`export_dir`: what a run made, copied out of the store into a folder of one's own."""

import shutil
from pathlib import Path

from dsrl.errors import UserError
from dsrl.sample import Sample
from dsrl.store import write_json
from dsrl.study import Study
from dsrl.table import write_table


def export(study: Study, folder: Path) -> None:
    """All and selected samples as Parquet in `data/`, and the trained model in `model/`, which is replaced.

    Raises `UserError` where nothing can be written.
    """
    data = folder / "data"
    try:
        data.mkdir(parents=True, exist_ok=True)
        write_table(data / "all.parquet", study.samples, Sample)
        write_table(data / "selected.parquet", study.chosen(study.selected), Sample)
        write_json(folder / "selected.json", {"selected": list(study.selected), "control": list(study.control)})
        if study.trained is not None and study.trained.path is not None:
            shutil.rmtree(folder / "model", ignore_errors=True)
            shutil.copytree(study.trained.path, folder / "model")
    except OSError as error:
        raise UserError(
            f"export_dir: can't write to {folder}", got=error.strerror, next_step="everything is in the store, too"
        ) from error
