"""The rows of the sample browser: accepted and rejected candidates with everything that is known about each."""

import json
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.digest import digest
from dsrl.data.images import chat_content, content_text, label_images
from dsrl.data.sample import Image, Passage, Provenance, Rate, Rejected, Sample, Votes
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline.state import PipelineState
from dsrl.stages.report.dataset import pass_rate
from dsrl.stages.report.labels import vote_agreement
from dsrl.stages.report.thumbnails import Thumbnails

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_TEXT = 20_000
"""Characters of one prompt or reply; longer ones are cut, with a note."""
MAX_ROLLOUTS = 4
"""Replies of the base model shown for a sample."""
ROLLOUT_TABLES = ("score/rollouts.parquet", "rewrite/rollouts.parquet")
"""Replies to seeds and samples; replies to variants, which are counted by `rewrite`."""
ROLLOUT_COLUMNS = ("sample", "text", "correct", "parsed", "finish_reason")

BrowserRow = dict[str, Any]
"""JSON-like; empty values are left out to keep the page small."""


@dataclass(frozen=True)
class Browser:
    """What the page embeds, and how much of the whole that is."""

    data: "Markup"
    """JSON that is safe inside a script element."""
    shown: int
    total: int
    complete: bool
    """Whether every row has its prompts and replies."""


def browser(
    state: PipelineState, calls: ReplyCache, thumbnails: Thumbnails, *, max_rows: int, max_characters: int
) -> Browser | None:
    """None without rows. Rows get prompts and replies in order, until `max_characters` of them are on the page."""
    total = len(state.samples) + len(state.rejected)
    if total == 0:
        return None
    samples, rejected = choose_rows(state, max_rows)
    thumbnails.add(image for sample in samples for image in sample.images)
    thumbnails.add(image for _, candidate in rejected for image in candidate.images)
    writer = RowWriter(state, calls, Texts(max_characters), thumbnails, [sample.id for sample in samples])
    rows = [writer.sample(sample) for sample in samples]
    rows += [writer.rejected(number, candidate) for number, candidate in rejected]
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        if row.get("parent") in by_id:
            by_id[row["parent"]].setdefault("children", []).append(row["id"])
    data = {"rows": rows, "texts": writer.texts.texts, "passages": writer.passages, "images": thumbnails.urls}
    complete = not any(row.get("bare") for row in rows)
    return Browser(data=script_json(data), shown=len(rows), total=total, complete=complete)


def script_json(data: Any) -> "Markup":
    """JSON without any character that could end a script element or start a tag."""
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704


def choose_rows(state: PipelineState, most: int) -> tuple[list[Sample], list[tuple[int, Rejected]]]:
    """All selected samples first, then a seeded random draw of the others, in their own order."""
    selected = list(state.chosen(tuple(dict.fromkeys(state.selected))))[:most]
    taken = {sample.id for sample in selected}
    others: list[Sample | tuple[int, Rejected]] = [sample for sample in state.samples if sample.id not in taken]
    others += list(enumerate(state.rejected))
    left = most - len(selected)
    if len(others) > left:
        rng = random.Random(digest(["report", len(others), left]))
        others = [others[place] for place in sorted(rng.sample(range(len(others)), left))]
    samples = selected + [row for row in others if isinstance(row, Sample)]
    return samples, [row for row in others if not isinstance(row, Sample)]


@dataclass
class Texts:
    """Every text once, however many rows show it, until `budget` characters are used up."""

    budget: int
    texts: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        """The text's number."""
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]}\n[{len(text) - MAX_TEXT} more characters: see dsrl trace]"
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
            self.budget -= len(text)
        return self._numbers[text]


class RowWriter:
    """Makes the rows, and collects the texts and passages that they refer to."""

    def __init__(
        self, state: PipelineState, calls: ReplyCache, texts: Texts, thumbnails: Thumbnails, shown: Sequence[str]
    ) -> None:
        self.texts, self.passages = texts, dict[str, dict[str, Any]]()
        self._thumbnails, self._calls, self._task = thumbnails, calls, state.task
        self._outcomes = SampleOutcomes.of(state)
        self._known_passages = {passage.id: passage for passage in state.passages}
        tables = [state.files[name] for name in ROLLOUT_TABLES if name in state.files]
        self._rollouts = read_rollouts(tables, shown)

    def sample(self, sample: Sample) -> BrowserRow:
        outcomes = self._outcomes
        row = {
            "id": sample.id,
            "question": label_images(sample.input, len(sample.images)),
            "images": self._thumbnails.numbers_of(sample.images),
            "answer": sample.answer,
            "solution": sample.solution,
            "origin": sample.origin,
            "generation": sample.generation,
            "rate": pass_rate(sample),
            "share": vote_agreement(sample.votes) if sample.votes else None,
            "outcome": outcomes.kind(sample),
            "words": outcomes.sentence(sample),
            "place": outcomes.places.get(sample.id),
            "control": sample.id in outcomes.control,
            "parent": sample.parent_id,
            "votes": _votes(sample.votes),
            "probe": _counts(sample.probe),
            "score": _counts(sample.score),
            "verdicts": [[verdict.verifier, verdict.accepted, verdict.reason] for verdict in sample.verdicts],
        }
        rollouts = [
            drop_empty({
                "text": self.texts.add(reply["text"]),
                "right": bool(reply["correct"]),
                "read": reply["parsed"],
                "cut": reply["finish_reason"] == "length",
            })
            for reply in self._rollouts.get(sample.id, ())
            if self.texts.budget > 0
        ]  # fmt: skip
        return drop_empty({**row, **self._sources(sample, sample.input), "rollouts": rollouts})

    def rejected(self, number: int, candidate: Rejected) -> BrowserRow:
        row = {
            "id": f"rejected-{number + 1}",
            "question": candidate.input and label_images(candidate.input, len(candidate.images)),
            "images": self._thumbnails.numbers_of(candidate.images),
            "answer": candidate.answer,
            "origin": "rewrite" if candidate.parent_id else "initial",
            "share": vote_agreement(candidate.votes) if candidate.votes else None,
            "outcome": "rejected",
            "words": f"Rejected by {candidate.stage}: {candidate.reason}.",
            "reason": candidate.reason,
            "detail": candidate.detail,
            "parent": candidate.parent_id,
            "votes": _votes(candidate.votes),
        }
        return drop_empty({**row, **self._sources(candidate, candidate.input)})

    def _sources(self, row: Sample | Rejected, question: str | None) -> BrowserRow:
        """Passage, prompts and replies; without the last two once the page is full."""
        provenance = row.provenance
        passage = self._known_passages.get(provenance.passage or "")
        if passage:
            self.passages.setdefault(passage.id, _passage(passage))
        found: BrowserRow = {"passage": passage and passage.id}
        if self.texts.budget <= 0:
            return {**found, "bare": True}
        return {**found, "candidate": provenance.index, "exchanges": self._exchanges(provenance, question, row.images)}

    def _exchanges(self, provenance: Provenance, question: str | None, images: Sequence[Image]) -> list[dict[str, Any]]:
        """One entry for each request behind a row, with its replies, as far as the reply cache still has them."""
        found = []
        for number, (request_digest, indices) in enumerate(indices_by_request(provenance.calls).items()):
            request = self._calls.request(request_digest)
            if request is None:
                continue
            messages = request.get("messages") or []
            asked = chat_content(self._task.prompt(question, images)) if question is not None else None
            vote = asked is not None and bool(messages) and messages[-1].get("content") == asked
            replies = (self._reply(request_digest, index, question if vote else None) for index in indices)
            prompt = [(str(turn.get("role")), content_text(turn.get("content"))) for turn in messages]
            found.append({
                "title": "Votes" if vote else "Generation" if number == 0 else "Further request",
                "how": sampling_words(request),
                "prompt": [[role, self.texts.add(text)] for role, text in prompt],
                "replies": [reply for reply in replies if reply],
            })  # fmt: skip
        return found

    def _reply(self, request_digest: str, index: int, question: str | None) -> dict[str, Any] | None:
        reply = self._calls.get(request_digest, index)
        if reply is None or reply.text is None:
            return None
        read = {} if question is None else {"read": self._task.answer.for_question(question).parse(reply.text)}
        return {"text": self.texts.add(reply.text), **read, **({"cut": True} if reply.truncated else {})}


@dataclass(frozen=True)
class SampleOutcomes:
    """What became of each sample."""

    places: dict[str, int]
    """Id -> rank among the selected samples, from 1."""
    control: frozenset[str]
    scored: bool
    """Whether the run has pass rates."""

    @classmethod
    def of(cls, state: PipelineState) -> "SampleOutcomes":
        return cls(
            places={identifier: place for place, identifier in enumerate(dict.fromkeys(state.selected), 1)},
            control=frozenset(state.control),
            scored=any(sample.score for sample in state.samples),
        )

    def kind(self, sample: Sample) -> str:
        """The choices of the browser's filter."""
        if sample.id in self.places:
            return "selected"
        if not self.scored:
            return "accepted"
        value = pass_rate(sample)
        if value is None:
            return "no pass rate"
        return "never solved" if value == 0 else "always solved" if value == 1 else "not selected"

    def sentence(self, sample: Sample) -> str:
        kind = self.kind(sample)
        reasons = {
            "no pass rate": "no reply of the base model came, so it has no pass rate",
            "never solved": "the base model never solves it",
            "always solved": "the base model always solves it",
            "not selected": "others ranked higher" if self.places else "this run selected no samples",
        }
        if kind == "selected":
            words = f"Selected for training, rank {self.places[sample.id]} of {len(self.places)}."
        elif kind == "accepted":
            words = "Accepted; this run has no pass rates and no selection."
        else:
            words = f"Not selected: {reasons[kind]}."
        if sample.id in self.control:
            words += " Also in the random control set."
        return words + (f" Shares text with a test item: {sample.matches[0].text}" if sample.matches else "")


def read_rollouts(tables: Iterable[Path], ids: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Sample id -> up to four replies of the base model, half of them correct if there are enough. Tables are read in
    batches, as they may have millions of rows."""
    import pyarrow.parquet

    found: dict[str, list[dict[str, Any]]] = {identifier: [] for identifier in ids}
    for path in tables:
        if not path.is_file():
            continue
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(columns=list(ROLLOUT_COLUMNS)):
            for place, name in enumerate(batch.column("sample").to_pylist()):
                if name in found:
                    row = {column: batch.column(column)[place].as_py() for column in ROLLOUT_COLUMNS}
                    alike = sum(other["correct"] == row["correct"] for other in found[name])
                    if row["text"] is not None and alike < MAX_ROLLOUTS:
                        found[name].append(row)
    return {identifier: _mix(rows) for identifier, rows in found.items() if rows}


def _mix(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    correct, wrong = ([row for row in rows if bool(row["correct"]) is right] for right in (True, False))
    kept = correct[: max(MAX_ROLLOUTS // 2, MAX_ROLLOUTS - len(wrong))]
    return kept + wrong[: MAX_ROLLOUTS - len(kept)]


def indices_by_request(calls: Iterable[str]) -> dict[str, list[int]]:
    """Request digest -> indices of its completions, in the order in which they were requested."""
    found: dict[str, list[int]] = {}
    for call in calls:
        request_digest, _, index = call.rpartition(":")
        found.setdefault(request_digest, []).append(int(index))
    return found


def sampling_words(request: Mapping[str, Any]) -> str:
    """`gpt-4o, temperature 0.7`."""
    parts = [str(request["model"])] if request.get("model") else []
    parts += [f"temperature {request['temperature']:g}"] if request.get("temperature") is not None else []
    return ", ".join(parts)


def drop_empty(row: BrowserRow) -> BrowserRow:
    """The row without None, empty and False values; a text number or a rate of 0 stays."""
    return {name: value for name, value in row.items() if value not in (None, "", [], {}, ()) and value is not False}


def _votes(given: Votes | None) -> BrowserRow | None:
    if given is None:
        return None
    return drop_empty({
        "counts": [[answer, count] for answer, count in given.counts.items()],
        "asked": given.asked,
        "planned": given.planned,
        "unparsable": given.unparsable,
        "failed": given.failed,
        "early": given.censored,
        "agrees": given.generator_agrees,
        "differs": given.generator_agrees is False,
    })  # fmt: skip


def _counts(measured: Rate | None) -> BrowserRow | None:
    if measured is None:
        return None
    return drop_empty({
        "asked": measured.num_rollouts,
        "valid": measured.num_valid,
        "right": measured.num_correct,
        "failed": measured.num_error,
        "cut": measured.num_truncated,
        "temperature": measured.temperature,
    })  # fmt: skip


def _passage(passage: Passage) -> BrowserRow:
    return {
        "text": passage.text,
        "source": passage.source,
        "keyword": passage.keyword,
        "rank": passage.rank + 1,
        "offset": passage.offset,
    }
