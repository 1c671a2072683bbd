"""Replies of a model that an earlier or a killed run has left in the calls store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsrl.forecast.workload import Held
from dsrl.llm.request import Call

if TYPE_CHECKING:
    from dsrl.llm import ReplyCache


def held(calls: Sequence[Call], count: int, store: "ReplyCache") -> Held:
    """Of the first `count` completions of each call."""
    found = (store.get(call.digest, index) for call in calls for index in range(count))
    usages = [reply.usage for reply in found if reply is not None]
    return Held(len(usages), sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages))
