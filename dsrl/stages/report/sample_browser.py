"""The rows of the sample browser: accepted and rejected ones, each with all that is known about it."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsrl.core.digest import digest
from dsrl.data.images import label_images
from dsrl.data.sample import Passage, Rate, Rejected, Sample, Votes
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report import rollouts
from dsrl.stages.report.difficulty import rate
from dsrl.stages.report.labels import agreement
from dsrl.stages.report.pictures import Pictures
from dsrl.stages.report.sample_outcome import Fates
from dsrl.stages.report.transcripts import Evidence, Texts

if TYPE_CHECKING:
    from markupsafe import Markup

    from dsrl.llm.reply_cache.cache import ReplyCache

Row = dict[str, Any]


@dataclass(frozen=True)
class Browser:
    """What the page embeds, and how much of the whole that is."""

    data: "Markup"
    """JSON that is safe inside a script element."""
    shown: int
    total: int
    complete: bool
    """Every shown row has its prompts and replies."""


def browser(
    state: PipelineState, calls: "ReplyCache", pictures: Pictures, *, max_rows: int, max_characters: int
) -> Browser | None:
    """None where there are no rows. Prompts and replies are given to the first rows as long as there is room."""
    total = len(state.samples) + len(state.rejected)
    if total == 0:
        return None
    samples, rejected = chosen(state, max_rows)
    shown: list[Sample | Rejected] = [*samples, *(row for _, row in rejected)]
    pictures.take(image for row in shown for image in row.images)
    texts = Texts(max_characters)
    writer = RowWriter(state, Evidence(calls, state.task, texts), pictures, [sample.id for sample in samples])
    rows = [writer.sample(sample) for sample in samples] + [writer.rejected(*numbered) for numbered in rejected]
    writer.link(rows)
    complete = not any(row.get("bare") for row in rows)
    data = {"rows": rows, "texts": texts.texts, "passages": writer.passages, "pictures": pictures.urls}
    return Browser(data=embedded(data), shown=len(rows), total=total, complete=complete)


def embedded(data: Any) -> "Markup":
    """JSON without any character that could end a script element or start a tag."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def chosen(state: PipelineState, most: int) -> tuple[list[Sample], list[tuple[int, Rejected]]]:
    """All selected samples first, then a seeded draw of the rest in proportion, in their own order."""
    selected = list(state.chosen(tuple(dict.fromkeys(state.selected))))[:most]
    taken = {sample.id for sample in selected}
    others: list[Sample | tuple[int, Rejected]] = [sample for sample in state.samples if sample.id not in taken]
    others += list(enumerate(state.rejected))
    room = most - len(selected)
    if len(others) > room:
        rng = random.Random(digest(["report", len(others), room]))
        others = [others[place] for place in sorted(rng.sample(range(len(others)), room))]
    samples = selected + [row for row in others if isinstance(row, Sample)]
    return samples, [row for row in others if not isinstance(row, Sample)]


class RowWriter:
    """Makes JSON-like rows; empty values are left out to keep the page small."""

    def __init__(self, state: PipelineState, evidence: Evidence, pictures: Pictures, shown: Sequence[str]) -> None:
        self.evidence, self.pictures = evidence, pictures
        self.fates = Fates.of(state)
        self.known = {passage.id: passage for passage in state.passages}
        self.passages: dict[str, dict[str, Any]] = {}
        tables = [state.files[name] for name in rollouts.TABLES if name in state.files]
        self.rollouts = rollouts.examples(tables, shown)

    def sample(self, sample: Sample) -> Row:
        row = {
            "id": sample.id,
            "question": label_images(sample.input, len(sample.images)),
            "images": self.pictures.shown(sample.images),
            "answer": sample.answer,
            "solution": sample.solution,
            "origin": sample.origin,
            "generation": sample.generation,
            "rate": rate(sample),
            "share": agreement(sample.votes) if sample.votes else None,
            "fate": self.fates.kind(sample),
            "words": self.fates.words(sample),
            "place": self.fates.places.get(sample.id),
            "control": sample.id in self.fates.control,
            "parent": sample.parent_id,
            "votes": votes(sample.votes),
            "probe": counted(sample.probe),
            "score": counted(sample.score),
            "verdicts": [[verdict.verifier, verdict.accepted, verdict.reason] for verdict in sample.verdicts],
        }
        return filled({**row, **self._sources(sample, sample.input), "rollouts": self._rollouts(sample.id)})

    def rejected(self, number: int, candidate: Rejected) -> Row:
        row = {
            "id": f"rejected-{number + 1}",
            "question": candidate.input and label_images(candidate.input, len(candidate.images)),
            "images": self.pictures.shown(candidate.images),
            "answer": candidate.answer,
            "origin": "rewrite" if candidate.parent_id else "initial",
            "share": agreement(candidate.votes) if candidate.votes else None,
            "fate": "rejected",
            "words": f"Rejected by {candidate.stage}: {candidate.reason}.",
            "reason": candidate.reason,
            "detail": candidate.detail,
            "parent": candidate.parent_id,
            "votes": votes(candidate.votes),
        }
        return filled({**row, **self._sources(candidate, candidate.input)})

    def link(self, rows: Sequence[Row]) -> None:
        """Tell every parent its children among the rows."""
        by_id = {row["id"]: row for row in rows}
        for row in rows:
            if row.get("parent") in by_id:
                by_id[row["parent"]].setdefault("children", []).append(row["id"])

    def _sources(self, row: Sample | Rejected, question: str | None) -> Row:
        provenance = row.provenance
        passage = self.known.get(provenance.passage or "")
        if passage:
            self.passages.setdefault(passage.id, shown_passage(passage))
        if self.evidence.texts.room <= 0:
            return {"passage": passage and passage.id, "bare": True}
        return {
            "passage": passage and passage.id,
            "candidate": provenance.index,
            "exchanges": self.evidence.exchanges(provenance, question, row.images),
        }

    def _rollouts(self, identifier: str) -> list[Row]:
        if self.evidence.texts.room <= 0:
            return []
        return [
            filled({
                "text": self.evidence.texts.add(reply["text"]),
                "right": bool(reply["correct"]),
                "read": reply["parsed"],
                "cut": reply["finish_reason"] == "length",
            })
            for reply in self.rollouts.get(identifier, ())
        ]  # fmt: skip


def filled(row: Row) -> Row:
    """Without what is None, empty or False; a text number or a rate of 0 stays."""
    return {name: value for name, value in row.items() if value not in (None, "", [], {}, ()) and value is not False}


def votes(given: Votes | None) -> Row | None:
    """Counts as pairs, the winner first."""
    if given is None:
        return None
    return filled({
        "counts": [[answer, count] for answer, count in given.counts.items()],
        "asked": given.asked,
        "planned": given.planned,
        "unparsable": given.unparsable,
        "failed": given.failed,
        "early": given.censored,
        "agrees": given.generator_agrees,
        "differs": given.generator_agrees is False,
    })  # fmt: skip


def counted(measured: Rate | None) -> Row | None:
    """A pass rate as its counts."""
    if measured is None:
        return None
    return filled({
        "asked": measured.num_rollouts,
        "valid": measured.num_valid,
        "right": measured.num_correct,
        "failed": measured.num_error,
        "cut": measured.num_truncated,
        "temperature": measured.temperature,
    })  # fmt: skip


def shown_passage(passage: Passage) -> Row:
    """A passage with where it came from."""
    return {
        "text": passage.text,
        "source": passage.source,
        "keyword": passage.keyword,
        "rank": passage.rank + 1,
        "offset": passage.offset,
    }
