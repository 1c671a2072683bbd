"""Prompts that an endpoint won't take, because they are too long or filtered: known ones aren't sent again."""

from dsrl.core.errors import UserError
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError
from dsrl.llm.request import Call

ENOUGH = 20
"""Prompts refused from the start, without one that was taken, after which it isn't the single prompt's fault."""


class Refusals:
    """Those of one client."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: dict[str, str] = {}

    def check(self, call: Call) -> None:
        """Raises `CallError` for a prompt that was refused before or can't fit into the model's context."""
        if (known := self._known.get(call.digest)) is not None:
            raise CallError("prompt", known)
        try:
            self._endpoint.check_prompt(call.body["messages"], call.body.get(self._endpoint.token_limit))
        except UserError as error:
            raise CallError("prompt", str(error).partition("\n")[0]) from error

    def add(self, call: Call, failure: CallError, any_taken: bool) -> None:
        """Raises `UserError` if the endpoint has taken none of many: then all that is to come would fail as well."""
        self._known[call.digest] = str(failure)
        if not any_taken and len(self._known) >= ENOUGH:
            raise UserError(
                f"{self._endpoint.model} takes none of the prompts: the first {len(self._known)} were all refused",
                got=failure,
                next_step="shorten the task's instruction, its demos or the passages, lower max_tokens, "
                "or take a model with a longer context",
            )
