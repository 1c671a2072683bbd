"""Samples and rejected candidates as rows of a Hugging Face data set: plain columns, embedded images."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dsrl.cli.export.card import shared_name
from dsrl.cli.export.source import ExportSource
from dsrl.core.component import Many, record
from dsrl.data.images import ImageStore, prompt_text
from dsrl.data.sample import Image, Rejected, Sample

if TYPE_CHECKING:
    import pyarrow

    from dsrl.data.task import Task

FEATURES = {"string": "string", "int64": "int64", "double": "float64", "bool": "bool"}
"""Arrow's names of types -> those of `datasets`."""


@record
class ExportRow:
    """A row without its images. Unknown values are null."""

    id: str | None = None
    """Hash of the content: equal questions have equal ids. Null for a rejected candidate."""
    question: str | None = None
    """With `<image>` in the place of each image."""
    prompt: str | None = None
    """The question as models are asked it, with the output instruction."""
    answer: str | None = None
    solution: str | None = None
    """A worked answer whose result is `answer`."""
    origin: str | None = None
    """`seed`, `initial`, `harder` or `easier`; null for a rejected candidate."""
    generation: int | None = None
    """Rewrites since the first ancestor."""
    parent_id: str | None = None
    """The sample that this one rewrites."""
    source_id: str | None = None
    """Its first ancestor."""
    selected: bool
    """Whether it was selected for training."""
    pass_rate: float | None = None
    """Share of the base model's replies that are correct."""
    num_correct: int | None = None
    num_valid: int | None = None
    """Number of replies behind the pass rate."""
    num_error: int | None = None
    num_truncated: int | None = None
    vote_share: float | None = None
    """Share of the teacher's votes for `answer`."""
    votes_asked: int | None = None
    teacher: str | None = None
    keyword: str | None = None
    source: str | None = None
    """Corpus and document of the passage that it was written from."""
    verdicts: Many[str] = ()
    """Verdicts of the verifiers."""
    matches: Many[str] = ()
    """Text that it shares with test items."""
    rejected_by: str | None = None
    """Stage that rejected it; null for an accepted sample."""
    reason: str | None = None
    detail: str | None = None


def schema(with_images: bool) -> "pyarrow.Schema":
    """The columns, with metadata from which `datasets` loads the files without further settings."""
    import json

    import pyarrow

    from dsrl.core.parquet import schema as columns

    found = columns(ExportRow)
    features: dict[str, Any] = {name: _feature(found.field(name).type) for name in found.names}
    if with_images:
        image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        found = found.insert(2, pyarrow.field("images", pyarrow.list_(image)))
        features = {name: features.get(name, _list({"_type": "Image"})) for name in found.names}
    return found.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: "pyarrow.DataType") -> dict[str, Any]:
    if hasattr(kind, "value_type"):
        return _list(_feature(kind.value_type))
    return {"dtype": FEATURES[str(kind)], "_type": "Value"}


def _list(feature: dict[str, Any]) -> dict[str, Any]:
    """`Sequence` is the name that both old and new versions of `datasets` know."""
    return {"feature": feature, "_type": "Sequence"}


def accepted(samples: Iterable[Sample], source: ExportSource, with_images: bool) -> Iterator[dict[str, Any]]:
    """Samples as rows, one at a time, so that only few images are in memory."""
    task = source.task() if source.config.get("task") else None
    chosen = frozenset(source.selected)
    for sample in samples:
        yield _plain(_sample(sample, task, sample.id in chosen, source), sample.images, source.images, with_images)


def rejected(rows: Iterable[Rejected], source: ExportSource, with_images: bool) -> Iterator[dict[str, Any]]:
    """Rejected candidates as rows of the same columns."""
    for candidate in rows:
        yield _plain(_rejected(candidate, source), candidate.images, source.images, with_images)


def _sample(sample: Sample, task: "Task | None", chosen: bool, source: ExportSource) -> ExportRow:
    score, votes = sample.score, sample.votes
    return ExportRow(
        id=sample.id,
        question=sample.input,
        prompt=prompt_text(task.prompt(sample.input, sample.images)) if task else None,
        answer=sample.answer,
        solution=sample.solution,
        origin=sample.origin,
        generation=sample.generation,
        parent_id=sample.parent_id,
        source_id=sample.source_id,
        selected=chosen,
        pass_rate=score.value if score else None,
        num_correct=score.num_correct if score else None,
        num_valid=score.num_valid if score else None,
        num_error=score.num_error if score else None,
        num_truncated=score.num_truncated if score else None,
        verdicts=tuple(f"{one.verifier}: {one.reason or 'accepted'}" for one in sample.verdicts),
        vote_share=votes.share if votes else None,
        votes_asked=votes.asked if votes else None,
        **_origins(sample, source),
    )


def _rejected(candidate: Rejected, source: ExportSource) -> ExportRow:
    votes = candidate.votes
    return ExportRow(
        question=candidate.input,
        answer=candidate.answer,
        parent_id=candidate.parent_id,
        selected=False,
        vote_share=votes.share if votes else None,
        votes_asked=votes.asked if votes else None,
        rejected_by=candidate.stage,
        reason=candidate.reason,
        detail=candidate.detail or None,
        **_origins(candidate, source),
    )


def _origins(row: Sample | Rejected, source: ExportSource) -> dict[str, Any]:
    passage = source.passages.get(row.provenance.passage or "")
    return {
        "teacher": row.provenance.teacher,
        "keyword": row.provenance.keyword,
        "source": passage.source if passage else None,
        "matches": tuple(f"item {match.item} of {shared_name(match.source)}: {match.text}" for match in row.matches),
    }


def _plain(row: ExportRow, images: tuple[Image, ...], store: ImageStore, with_images: bool) -> dict[str, Any]:
    import dataclasses

    shown = [{"bytes": store.path(image).read_bytes(), "path": image.path.rpartition("/")[2]} for image in images]
    return {**dataclasses.asdict(row), **({"images": shown} if with_images else {})}
