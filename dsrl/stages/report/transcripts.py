"""The raw prompts and replies behind a row, out of the calls store, in the shape the browser reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dsrl.data.images import chat_content, content_text
from dsrl.data.sample import Image, Provenance
from dsrl.data.task import Task
from dsrl.llm.reply_cache.cache import ReplyCache

MAX_TEXT = 20_000
"""Characters of one prompt or reply; longer ones are cut and say so."""


@dataclass
class Texts:
    """Every text once, however many rows show it, up to a number of characters in all."""

    room: int
    """Characters that may still be added."""
    texts: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        """The text's number."""
        if len(text) > MAX_TEXT:
            text = f"{text[:MAX_TEXT]}\n[{len(text) - MAX_TEXT} more characters are in the calls store]"
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
            self.room -= len(text)
        return self._places[text]


@dataclass(frozen=True)
class Evidence:
    """Reads the calls store."""

    calls: ReplyCache
    task: Task
    texts: Texts

    def exchanges(
        self, provenance: Provenance, question: str | None, images: Sequence[Image] = ()
    ) -> list[dict[str, Any]]:
        """One entry for each request behind a row, with its replies; those that are not stored any more are missing."""
        asked = grouped(provenance.calls)
        found = ((digest, indices, self.calls.request(digest)) for digest, indices in asked.items())
        return [
            self._exchange(number, digest, indices, request, question, images)
            for number, (digest, indices, request) in enumerate(found)
            if request is not None
        ]

    def _exchange(
        self,
        number: int,
        digest: str,
        indices: Sequence[int],
        request: Mapping[str, Any],
        question: str | None,
        images: Sequence[Image],
    ) -> dict[str, Any]:
        messages = request.get("messages") or []
        put = chat_content(self.task.prompt(question, images)) if question is not None else None
        vote = put is not None and bool(messages) and messages[-1].get("content") == put
        return {
            "title": "Votes" if vote else "TeacherGenerator" if number == 0 else "Further request",
            "how": sampling(request),
            "prompt": [[str(turn.get("role")), self.texts.add(content_text(turn.get("content")))] for turn in messages],
            "replies": [
                reply for index in indices if (reply := self._reply(digest, index, question if vote else None))
            ],
        }

    def _reply(self, digest: str, index: int, question: str | None) -> dict[str, Any] | None:
        reply = self.calls.get(digest, index)
        if reply is None or reply.text is None:
            return None
        read = {} if question is None else {"read": self.task.answer.for_question(question).parse(reply.text)}
        cut = {"cut": True} if reply.truncated else {}
        return {"text": self.texts.add(reply.text), **read, **cut}


def grouped(calls: Iterable[str]) -> dict[str, list[int]]:
    """Request digest -> indices of its completions, in the order in which they were asked."""
    asked: dict[str, list[int]] = {}
    for call in calls:
        digest, _, index = call.rpartition(":")
        asked.setdefault(digest, []).append(int(index))
    return asked


def sampling(request: Mapping[str, Any]) -> str:
    """`gpt-4o, temperature 0.7`."""
    parts = [str(request["model"])] if request.get("model") else []
    parts += [f"temperature {request['temperature']:g}"] if request.get("temperature") is not None else []
    return ", ".join(parts)
