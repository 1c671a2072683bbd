"""Clients that send nothing: one answers from the reply cache only, the other with simulated replies.

With them a stage's own code shows what is already paid for, and how many replies a vote takes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsrl.data.images.prompt import content_length
from dsrl.data.model import Reply
from dsrl.forecast.workload import CachedUsage
from dsrl.llm.client import MAX_CHOICES, Client
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.ledger.ledger import Ledger
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.request import Request

UNUSED = ReplyCache(Path("nowhere"))
"""Never opened: these clients neither store replies nor look any up through their base class."""
WRONG_ANSWERS = 3
"""Different wrong answers of a simulated teacher."""


class NotCachedError(Exception):
    """A reply is not in the cache."""


@dataclass
class Usage:
    """What some completions cost, or would have cost without the cache."""

    requests: int = 0
    completions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_characters: int = 0
    """Length of the first prompt, whether its reply is cached or not."""
    prompt_tokens: int = 0
    """Billed for the first prompt; 0 if its reply isn't cached."""

    def add(self, requests: int, replies: Sequence[Reply], characters: int) -> None:
        """Count the replies to one prompt."""
        input_tokens = sum(reply.usage.input_tokens for reply in replies)
        if not self.completions:
            self.prompt_characters, self.prompt_tokens = characters, input_tokens
        self.requests += requests
        self.completions += len(replies)
        self.input_tokens += input_tokens
        self.output_tokens += sum(reply.usage.output_tokens for reply in replies)

    @property
    def cached(self) -> CachedUsage:
        """The same as cached usage, if all of it came from the cache."""
        return CachedUsage(self.completions, self.input_tokens, self.output_tokens)


class CacheOnlyClient(Client):
    """Returns cached replies, and raises `NotCachedError` at the first that is missing."""

    def __init__(self, endpoint: Endpoint, cache: ReplyCache | None) -> None:
        """`cache` is None if no reply was ever stored."""
        super().__init__(endpoint, cache or UNUSED, Ledger())
        self._existing = cache
        self.usage = Usage()

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        call = self.endpoint.call(request)
        characters = sum(content_length(message["content"]) for message in request.messages)
        found = [self._existing.get(call.digest, i) for i in range(first, first + count)] if self._existing else []
        replies = [reply for reply in found if reply is not None]
        self.usage.add(num_requests(self.endpoint, len(replies)), replies, characters)
        if len(replies) < count:
            self.usage.prompt_characters = self.usage.prompt_characters or characters
            raise NotCachedError
        return replies


class SimulatedClient(Client):
    """Answers `0` with probability `agreement`, otherwise a random digit of `WRONG_ANSWERS`."""

    def __init__(self, endpoint: Endpoint, agreement: float, seed: int) -> None:
        super().__init__(endpoint, UNUSED, Ledger())
        self.agreement = agreement
        self.usage = Usage()
        self._random = random.Random(seed)

    async def complete(self, request: Request, count: int = 1, first: int = 0) -> list[Reply]:
        del request
        replies = [Reply(text=self._answer(), call=f"simulated:{first + i}") for i in range(count)]
        self.usage.add(num_requests(self.endpoint, count), replies, 0)
        return replies

    def _answer(self) -> str:
        return "0" if self._random.random() < self.agreement else str(self._random.randint(1, WRONG_ANSWERS))


def num_requests(endpoint: Endpoint, completions: int) -> int:
    """HTTP requests needed for so many completions of one prompt."""
    return -(-completions // MAX_CHOICES) if endpoint.takes_n else completions
