"""Completions on their way from an endpoint, whoever waits for them."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dsrl.data.model import Reply
from dsrl.llm.request import Call


class Flight:
    """Neighbouring completions of one call, asked for in one HTTP request if all goes well.

    A request that was sent is paid for, so a flight in the air comes home even if nobody waits any more; one that
    still queues, or pauses before a repeat, ends with the last of its askers.
    """

    def __init__(
        self, call: Call, indices: list[int], number: int, fly: Callable[["Flight"], Coroutine[Any, Any, None]]
    ) -> None:
        """`fly` fills `replies`. Smaller numbers go first."""
        self.call, self.indices, self.number = call, indices, number
        self.replies: dict[int, Reply] = {}
        self.askers = 0
        self.airborne = False
        self.landing = False
        """Nothing more is to be sent, because the client is being closed."""
        self.task = asyncio.ensure_future(fly(self))

    @property
    def missing(self) -> list[int]:
        return [i for i in self.indices if i not in self.replies]

    @property
    def block(self) -> list[int]:
        """What the next HTTP request asks for: the first missing ones that are neighbours."""
        missing = self.missing
        return [index for place, index in enumerate(missing) if index == missing[0] + place]

    @property
    def wanted(self) -> bool:
        return self.askers > 0 and not self.landing

    def leave(self) -> None:
        """One asker fewer."""
        self.askers -= 1
        if not self.askers:
            self.stop()

    def stop(self) -> None:
        """Sends nothing more."""
        if not self.airborne:
            self.task.cancel()
