"""Samples and rejected candidates as rows of a Hugging Face data set: plain columns, pictures embedded."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dsrl.cli.export.card import shared_name
from dsrl.cli.export.source import Made
from dsrl.core.component import Many, record
from dsrl.data.images import ImageStore, prompt_text
from dsrl.data.sample import Image, Rejected, Sample

if TYPE_CHECKING:
    import pyarrow

    from dsrl.data.task import Task

FEATURES = {"string": "string", "int64": "int64", "double": "float64", "bool": "bool"}
"""Arrow's names of types -> those of `datasets`."""


@record
class Row:
    """A row but for its pictures. What is not known is null."""

    id: str | None = None
    """Digest of the content: equal questions, equal ids; null for a rejected one."""
    question: str | None = None
    """Holds `<image>` where a picture stands."""
    prompt: str | None = None
    """As models were asked it: with the instruction on the output."""
    answer: str | None = None
    solution: str | None = None
    """A worked answer whose result is `answer`."""
    origin: str | None = None
    """`seed`, `initial`, `harder` or `easier`; null for a rejected one."""
    generation: int | None = None
    """Rewrites since the first ancestor."""
    parent_id: str | None = None
    """The sample that this one rewrites."""
    source_id: str | None = None
    """Its first ancestor."""
    selected: bool
    """Whether it was chosen for training."""
    pass_rate: float | None = None
    """Share of the base model's replies that are right."""
    num_correct: int | None = None
    num_valid: int | None = None
    """Replies that the pass rate is a share of."""
    num_error: int | None = None
    num_truncated: int | None = None
    vote_share: float | None = None
    """Share of the teacher's own answers that are `answer`."""
    votes_asked: int | None = None
    teacher: str | None = None
    keyword: str | None = None
    source: str | None = None
    """Corpus and document of the passage that it was written from."""
    verdicts: Many[str] = ()
    """What verifiers said."""
    matches: Many[str] = ()
    """Words that it shares with test items."""
    rejected_by: str | None = None
    """Stage that turned it down; null for an accepted one."""
    reason: str | None = None
    detail: str | None = None


def schema(pictures: bool) -> "pyarrow.Schema":
    """With what `datasets` needs to know in its metadata, so that the files load by themselves."""
    import json

    import pyarrow

    from dsrl.core.parquet import schema as columns

    found = columns(Row)
    features: dict[str, Any] = {name: _feature(found.field(name).type) for name in found.names}
    if pictures:
        image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        found = found.insert(2, pyarrow.field("images", pyarrow.list_(image)))
        features = {name: features.get(name, _list({"_type": "Image"})) for name in found.names}
    return found.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: "pyarrow.DataType") -> dict[str, Any]:
    if hasattr(kind, "value_type"):
        return _list(_feature(kind.value_type))
    return {"dtype": FEATURES[str(kind)], "_type": "Value"}


def _list(feature: dict[str, Any]) -> dict[str, Any]:
    """Under the name that old and new versions of `datasets` know."""
    return {"feature": feature, "_type": "Sequence"}


def accepted(samples: Iterable[Sample], made: Made, pictures: bool) -> Iterator[dict[str, Any]]:
    """Samples as rows, one at a time: pictures are read when they are written."""
    task = made.task() if made.config.get("task") else None
    chosen = frozenset(made.selected)
    for sample in samples:
        yield _plain(_sample(sample, task, sample.id in chosen, made), sample.images, made.images, pictures)


def rejected(rows: Iterable[Rejected], made: Made, pictures: bool) -> Iterator[dict[str, Any]]:
    """Rejected candidates as rows of the same columns."""
    for candidate in rows:
        yield _plain(_rejected(candidate, made), candidate.images, made.images, pictures)


def _sample(sample: Sample, task: "Task | None", chosen: bool, made: Made) -> Row:
    score, votes = sample.score, sample.votes
    return Row(
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
        **_origins(sample, made),
    )


def _rejected(candidate: Rejected, made: Made) -> Row:
    votes = candidate.votes
    return Row(
        question=candidate.input,
        answer=candidate.answer,
        parent_id=candidate.parent_id,
        selected=False,
        vote_share=votes.share if votes else None,
        votes_asked=votes.asked if votes else None,
        rejected_by=candidate.stage,
        reason=candidate.reason,
        detail=candidate.detail or None,
        **_origins(candidate, made),
    )


def _origins(row: Sample | Rejected, made: Made) -> dict[str, Any]:
    passage = made.passages.get(row.provenance.passage or "")
    return {
        "teacher": row.provenance.teacher,
        "keyword": row.provenance.keyword,
        "source": passage.source if passage else None,
        "matches": tuple(f"item {match.item} of {shared_name(match.source)}: {match.text}" for match in row.matches),
    }


def _plain(row: Row, images: tuple[Image, ...], store: ImageStore, pictures: bool) -> dict[str, Any]:
    import dataclasses

    shown = [{"bytes": store.path(image).read_bytes(), "path": image.path.rpartition("/")[2]} for image in images]
    return {**dataclasses.asdict(row), **({"images": shown} if pictures else {})}
