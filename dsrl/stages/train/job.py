"""What a training child is told, as a JSON file: enough to repeat the training by hand."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from dsrl.core.component import Many, record
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
TREE = "verl.yaml"
"""veRL's whole config, as it ran."""
WORKERS = "workers.json"
"""Host -> what of veRL ran there."""


@record
class Row:
    """One question to train on or to validate with."""

    id: str
    prompt: str
    """As every model is asked: input and output instruction, with a placeholder for each picture."""
    images: Many[str] = ()
    """Files of the pictures, below the job's `images`."""
    answer: str
    solution: str | None = None
    origin: str | None = None
    """Of a synthetic sample: `initial`, `harder`, `easier` or `seed`; None for labelled data."""
    parent: str | None = None
    """Id of the sample that it was rewritten from."""
    passage: str | None = None
    """Id of the passage that it was written from."""
    pass_rate: float | None = None
    """Of a scored sample: how often the base model solves it."""


@record
class Job:
    """A training in all its detail. `folder` holds the rows, the checkpoints and what the child writes."""

    folder: str
    model: Model
    algorithm: str
    settings: dict[str, Any]
    """The algorithm's hyper-parameters, or those of supervised training."""
    grader: dict[str, Any]
    """Identity of the task's grader, from which the child makes it again."""
    steps: int
    """Updates."""
    rows_per_step: int
    seed: int
    checkpoint_every: int
    validation: Sampling
    """How replies to held-out samples are drawn."""
    images: str = ""
    """Folder of the rows' pictures."""
    validation_replies: int
    keep: str
    device_batch: int | None
    resume: str | None = Field(default=None)
    """Checkpoint to go on from."""

    def path(self, name: str) -> Path:
        """A file in the job's folder."""
        return Path(self.folder) / name

    def write(self) -> Path:
        """Save it where the child finds it."""
        path = self.path(JOB)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")
        return path


def read_job(path: Path) -> Job:
    """The job of this file, checked."""
    from pydantic import TypeAdapter

    return TypeAdapter(Job).validate_json(path.read_bytes())


def write_rows(path: Path, rows: tuple[Row, ...]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> tuple[Row, ...]:
    """What `write_rows` has written."""
    lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would also cut at U+2028 inside a text
    return tuple(Row(**json.loads(line)) for line in lines if line)
