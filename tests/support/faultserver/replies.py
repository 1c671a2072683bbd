"""What a reply holds: choices, what the model's habits do to them, and how many tokens it all is."""

import json
import time
from collections.abc import Mapping
from itertools import count
from typing import Any, get_args

from tests.support.faultserver import draw
from tests.support.faultserver.answers import Said, answer
from tests.support.faultserver.faults import Faults, Habit

MODEL = "fault-1"
"""The name of the model where none is set."""
CHARACTERS_PER_TOKEN = 4
HABITS = get_args(Habit)
SORRY = "I can't help with that."


class Replies:
    """The model behind the server."""

    _numbers = count()

    def __init__(self, faults: Faults) -> None:
        """Raises `UserError` for an answer that isn't there."""
        self.faults = faults
        self._answer = answer(faults)

    def completion(self, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        """A `chat.completion` object with all its choices, as it is before anything breaks it."""
        choices = [self._choice(body, key, index) for index in range(body.get("n") or 1)]
        read = prompt_tokens(body["messages"])
        written = sum(tokens(choice["message"]["content"] or choice["message"]["refusal"] or "") for choice in choices)
        usage: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        usage["prompt_tokens_details"] = {"cached_tokens": int(self.faults.cached * read)}
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model") or MODEL,
            "choices": choices,
            "usage": usage,
        }

    def _choice(self, body: Mapping[str, Any], key: str, index: int) -> dict[str, Any]:
        said, finish = self._answer(body, key, index), "stop"
        if self.faults.shares:
            parts = (self.faults.seed, key, (body.get("seed") or 0) + index, "habit")
            said, finish = bent(said, draw.fault(self.faults.shares, HABITS, *parts))
        content, bound = said.content, limit(body)
        if content and bound is not None and tokens(content) > bound:
            content, finish = content[: bound * CHARACTERS_PER_TOKEN], "length"
        message = {"role": "assistant", "content": content, "refusal": said.refusal}
        return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}


def bent(said: Said, habit: str | None) -> tuple[Said, str]:
    """What the model says instead, and why it ended."""
    text = said.content or ""
    match habit:
        case "length":
            return Said(text[: len(text) // 2]), "length"
        case "filter":
            return Said(""), "content_filter"
        case "refusal":
            return Said(None, SORRY), "stop"
        case "not_json":
            return Said(text[: len(text) * 2 // 3]), "stop"
        case "wrong_schema":
            return Said(json.dumps({"thing": text[:20], "count": 1})), "stop"
    return said, "stop"


def tokens(text: str) -> int:
    """As many as a text of this length mostly has."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """Tokens of all messages, a few for each of them."""
    return sum(tokens(str(message.get("content") or "")) + 3 for message in messages)


def limit(body: Mapping[str, Any]) -> int | None:
    """Longest reply that the request allows, in tokens."""
    return body.get("max_completion_tokens") or body.get("max_tokens")
