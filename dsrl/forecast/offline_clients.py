"""Clients that ask nobody: one answers out of the store alone, the other with replies that are made up.

With them a stage's own code can be rehearsed: what is paid for already, and how many replies a vote takes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsrl.data.images.prompt import content_length
from dsrl.data.model import Reply
from dsrl.forecast.workload import Held
from dsrl.llm.client import MAX_CHOICES, Client
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.request import Request

UNUSED = ReplyCache(Path("nowhere"))
"""Never opened: these clients neither store nor, through their base class, look anything up."""
WRONG_ANSWERS = 3
"""Different wrong answers that an imagined teacher gives."""


class UnpaidError(Exception):
    """A completion that is not in the store."""


@dataclass
class Tally:
    """What some completions cost, or would have cost if nothing had been stored."""

    requests: int = 0
    completions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_characters: int = 0
    """Of the first request, whether its reply is there or not."""
    prompt_tokens: int = 0
    """Billed for that request; 0 where its reply isn't there."""

    def add(self, requests: int, replies: Sequence[Reply], characters: int) -> None:
        """Count the completions of one question."""
        read = sum(reply.usage.input_tokens for reply in replies)
        if not self.completions:
            self.prompt_characters, self.prompt_tokens = characters, read
        self.requests += requests
        self.completions += len(replies)
        self.input_tokens += read
        self.output_tokens += sum(reply.usage.output_tokens for reply in replies)

    @property
    def held(self) -> Held:
        """All of it, if it came out of the store."""
        return Held(self.completions, self.input_tokens, self.output_tokens)


class DryClient(Client):
    """Replies that are in the store, and `UnpaidError` at the first that isn't."""

    def __init__(self, endpoint: Endpoint, store: ReplyCache | None) -> None:
        """`store`: None where no reply was ever stored."""
        super().__init__(endpoint, store or UNUSED, Ledger())
        self._paid = store
        self.tally = Tally()

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        call = self.endpoint.call(request)
        characters = sum(content_length(message["content"]) for message in request.messages)
        found = [self._paid.get(call.digest, i) for i in range(first, first + count)] if self._paid else []
        replies = [reply for reply in found if reply is not None]
        complete = len(replies) == count
        self.tally.add(requests_for(self.endpoint, len(replies)), replies, characters)
        if not complete:
            self.tally.prompt_characters = self.tally.prompt_characters or characters
            raise UnpaidError
        return replies


class ImaginedClient(Client):
    """A teacher whose answers to one question agree with a given probability: `0` is right, other digits are wrong."""

    def __init__(self, endpoint: Endpoint, agreement: float, seed: int) -> None:
        super().__init__(endpoint, UNUSED, Ledger())
        self.agreement = agreement
        self.tally = Tally()
        self._rng = random.Random(seed)

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        del request
        replies = [Reply(text=self._answer(), call=f"imagined:{first + i}") for i in range(count)]
        self.tally.add(requests_for(self.endpoint, count), replies, 0)
        return replies

    def _answer(self) -> str:
        return "0" if self._rng.random() < self.agreement else str(self._rng.randint(1, WRONG_ANSWERS))


def requests_for(endpoint: Endpoint, completions: int) -> int:
    """HTTP requests that bring so many completions of one question."""
    return -(-completions // MAX_CHOICES) if endpoint.takes_n else completions
