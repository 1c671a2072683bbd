"""Decide whether a refused request (4xx) concerns its prompt or every request, by what happens to other requests.

The wording of refusals differs between providers and changes, so words decide nothing. A request is comparable with
others of the same shape: the same model, fields and schema, whatever the messages. Once one of them has been answered,
a refusal concerns its prompt: its completions are missing data, and the run goes on. Before that, a refusal waits for
the outcome of the other requests. If all of them are refused as well, it concerns every request, and the run stops.
"""

import asyncio
import logging

from dsrl.core.errors import UserError
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, final_error
from dsrl.llm.request import Call

MAX_REFUSED = 20
"""Refused prompts, without one accepted, after which the endpoint and not the prompt is the reason."""

log = logging.getLogger(__name__)


class Refusals:
    """The refused prompts of one client. They are not sent again in this run."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._reasons: dict[str, str] = {}
        self._accepted: set[str] = set()
        """Shapes of which a completion was seen, in this run or in the reply cache."""
        self._num_accepted = 0
        self._in_a_row: set[str] = set()
        """Refused calls since the last completion."""
        self._undecided: dict[asyncio.Future[bool], str] = {}
        """Requests that wait for a decision, and their shapes."""
        self._warned = False

    def check(self, call: Call) -> None:
        """Raise `CallError` for a prompt that was refused before or cannot fit into the model's context."""
        if (reason := self._reasons.get(call.digest)) is not None:
            raise CallError("prompt", reason)
        try:
            self._endpoint.check_prompt(call.body["messages"], call.body.get(self._endpoint.token_limit))
        except UserError as error:
            raise CallError("prompt", str(error).partition("\n")[0]) from error

    def accepted(self, call: Call) -> None:
        """A completion of the call was received, or found in the reply cache."""
        self._num_accepted += 1
        self._in_a_row.clear()
        if call.shape not in self._accepted:
            self._accepted.add(call.shape)
            self._decide(True, call.shape)

    async def concerns_prompt(self, call: Call, num_active: int) -> bool:
        """Whether the refusal of a call concerns its prompt alone; False: every request would be refused.

        `num_active`: requests that are queued, in flight or undecided, this one included.
        """
        if call.shape in self._accepted:
            return True
        decision: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._undecided[decision] = call.shape
        self.request_ended(num_active)
        try:
            return await decision
        finally:
            self._undecided.pop(decision, None)

    def request_ended(self, num_active: int) -> None:
        """Decide against the endpoint if no active request is left that could still be accepted."""
        if len(self._undecided) >= min(num_active, MAX_REFUSED):
            self._decide(False)

    def _decide(self, concerns_prompt: bool, shape: str | None = None) -> None:
        for decision, waiting in self._undecided.items():
            if not decision.done() and shape in (None, waiting):
                decision.set_result(concerns_prompt)

    def add(self, call: Call, failure: CallError, url: str) -> None:
        """Remember a refused prompt. Raises `UserError` after many in a row, and more than were ever accepted."""
        self._reasons[call.digest] = str(failure)
        self._in_a_row.add(call.digest)
        if len(self._in_a_row) >= max(MAX_REFUSED, self._num_accepted):
            if failure.kind == "refused":
                raise final_error(failure, self._endpoint, url) from failure
            raise UserError(
                f"{self._endpoint.model} accepts none of the prompts: the last {len(self._in_a_row)} were all refused",
                got=failure,
                next_step="shorten the task's instruction, its demos or the passages, lower max_tokens, "
                "or choose a model with a longer context",
            ) from failure
        if not self._warned:
            self._warned = True
            log.warning(
                "%s refuses a prompt (%s): its replies are missing, other prompts go on", self._endpoint.model, failure
            )
