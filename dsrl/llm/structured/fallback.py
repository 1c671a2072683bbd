"""Structured output that an endpoint refuses gives way to the next simpler kind, for all that a run asks it."""

import logging
from typing import Any

from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError
from dsrl.llm.structured.schema import JsonMode

NEXT: dict[JsonMode, JsonMode] = {"schema": "object", "object": "text"}
REFUSING = (400, 404, 415, 422, 500, 501)
WORDS = ("response_format", "response format", "json_schema", "json schema", "json_object", "guided", "structured out")
SHOWN = 200

log = logging.getLogger(__name__)


class Formats:
    """What each endpoint of a run has been found to take."""

    def __init__(self) -> None:
        self._modes: dict[tuple[str, str | None, object], JsonMode] = {}

    def mode(self, endpoint: Endpoint) -> JsonMode:
        """The way in which it is to be asked for an object."""
        return self._modes.get(_address(endpoint), endpoint.json_mode)

    def refused(self, endpoint: Endpoint, body: dict[str, Any], failure: CallError) -> bool:
        """Whether the endpoint refuses the structured output asked for, so that the request is worth sending again in
        the way that `mode` then says. Said once for each way that is given up."""
        mode = _mode_of(body)
        words = str(failure).lower()
        if mode not in NEXT or failure.status not in REFUSING or not any(word in words for word in WORDS):
            return False
        if self.mode(endpoint) == mode:
            self._modes[_address(endpoint)] = NEXT[mode]
            log.warning(
                "%s refuses %s (%s); objects are now asked for in another way: teacher.json_mode=%s spares the refusal",
                endpoint.model,
                "JSON schemas" if mode == "schema" else "JSON mode",
                str(failure)[:SHOWN],
                NEXT[mode],
            )
        return True


def _address(endpoint: Endpoint) -> tuple[str, str | None, object]:
    return endpoint.model, endpoint.base_url, endpoint.json_mode


def _mode_of(body: dict[str, Any]) -> JsonMode:
    form = body.get("response_format")
    if form is None:
        return "text"
    return "schema" if form["type"] == "json_schema" else "object"
