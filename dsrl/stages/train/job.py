"""A training job on disk: written by the parent, read by the child, enough to repeat the training by hand."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from dsrl.core.component import Many, record
from dsrl.core.files import write_json
from dsrl.data.model import Model, Sampling

JOB = "job.json"
TRAIN = "train.jsonl"
VALIDATION = "validation.jsonl"
PROGRESS = "progress.jsonl"
LOG = "train.log"
FAILURE = "failure.json"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"
VERL_CONFIG = "verl.yaml"
"""veRL's complete config, as it ran."""
WORKER_HOSTS = "workers.json"
"""Host -> names of veRL's workers on it."""


@record
class TrainingRow:
    """A question to train on or to validate with."""

    id: str
    prompt: str
    """Input and output instruction, with a placeholder for each image."""
    images: Many[str] = ()
    """Image files, relative to the job's `images` folder."""
    answer: str
    solution: str | None = None
    origin: str | None = None
    """Origin of a synthetic sample: `initial`, `harder`, `easier` or `seed`; None for labelled data."""
    parent: str | None = None
    """Id of the sample that it was rewritten from."""
    passage: str | None = None
    """Id of the passage that it was written from."""
    pass_rate: float | None = None
    """The base model's pass rate, if the sample was scored."""


@record
class TrainingJob:
    """All settings of a training. `folder` holds the rows, the checkpoints and the child's output."""

    folder: str
    model: Model
    algorithm: str
    settings: dict[str, Any]
    """Hyper-parameters of the algorithm or of supervised training."""
    grader: dict[str, Any]
    """Key fields of the task's grader, from which the child rebuilds it."""
    steps: int
    """Number of updates."""
    rows_per_step: int
    seed: int
    checkpoint_every: int
    validation: Sampling
    """Sampling of the replies to held-out samples."""
    images: str = ""
    """Folder of the rows' images."""
    validation_replies: int
    keep: str
    device_batch: int | None
    resume: str | None = Field(default=None)
    """Checkpoint folder to resume from."""

    def path(self, name: str) -> Path:
        """A file in the job's folder."""
        return Path(self.folder) / name

    def write(self) -> Path:
        """Save the job as `job.json` in its folder; returns the path."""
        path = self.path(JOB)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")
        return path

    def failure(self) -> str | None:
        """Why the training failed, as far as a process of the training reported it."""
        path = self.path(FAILURE)
        return json.loads(path.read_text(encoding="utf-8"))["reason"] if path.is_file() else None

    def report_failure(self, reason: str, *, replace: bool = False) -> None:
        """Store why the training fails. The first report counts, unless `replace`."""
        path = self.path(FAILURE)
        if replace or not path.exists():
            write_json(path, {"reason": reason})


def read_job(path: Path) -> TrainingJob:
    """Load and validate `job.json`."""
    from pydantic import TypeAdapter

    return TypeAdapter(TrainingJob).validate_json(path.read_bytes())


def write_rows(path: Path, rows: tuple[TrainingRow, ...]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> tuple[TrainingRow, ...]:
    """Read the output of `write_rows`."""
    lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also split at U+2028 inside a text
    return tuple(TrainingRow(**json.loads(line)) for line in lines if line)
