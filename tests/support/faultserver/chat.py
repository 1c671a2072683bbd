"""Chat completions: what is refused, what a reply holds, and what is done to it on its way out."""

import asyncio
import json
import math
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, get_args

from tests.support.faultserver import draw
from tests.support.faultserver.answers import last
from tests.support.faultserver.broken import broken
from tests.support.faultserver.faults import HARMLESS, Breakage, Faults, Refusal
from tests.support.faultserver.http import Exchange, error
from tests.support.faultserver.journal import Entry, Journal
from tests.support.faultserver.quota import Gate
from tests.support.faultserver.replies import Replies, limit, prompt_tokens

REFUSALS = get_args(Refusal)
BREAKAGES = get_args(Breakage)
MOST_CHOICES = 128
MESSAGES = {
    "429": "Rate limit reached: too many requests.",
    "quota": "You exceeded your current quota, please check your plan and billing details.",
    "500": "The server had an error while processing your request.",
    "502": "Bad gateway.",
    "503": "The engine is currently overloaded, please try again later.",
}


class Wrong(Exception):
    """A request that no repeat cures."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Chat:
    """Answers `/v1/chat/completions`."""

    def __init__(self, faults: Faults, journal: Journal) -> None:
        self.faults = faults
        self.journal = journal
        self.gate = Gate(faults)
        self.replies = Replies(faults)
        self._script = 0

    def change(self, faults: Faults) -> None:
        """From now on these; a new script begins at its first step."""
        self.replies = Replies(faults)
        if faults.script != self.faults.script:
            self._script = 0
        self.faults = self.gate.faults = faults

    def handle(self, exchange: Exchange) -> None:
        """One request: checked, let in or turned away, served, and broken where it is its turn."""
        entry = self.journal.arrived()
        try:
            body = self.read(exchange)
        except Wrong as wrong:
            self._refuse(exchange, entry, wrong.status, error(wrong.status, str(wrong), wrong.code))
            return
        entry.key, entry.seed, entry.n = draw.key(body), body.get("seed") or 0, body.get("n") or 1
        if self.faults.down == "503" or self.gate.outage() == "503":
            self._refuse(exchange, entry, 503, error(503, MESSAGES["503"], "outage"), fault="outage")
        elif (wait := self.gate.full()) is not None:
            self._refuse(exchange, entry, 429, error(429, MESSAGES["429"], "rate_limit_exceeded"), self.hint(wait))
        else:
            self._admit(exchange, entry, body)

    def read(self, exchange: Exchange) -> dict[str, Any]:
        """The body of the request. Raises `Wrong` for what this server doesn't take."""
        if self.faults.key is not None and exchange.header("authorization") != f"Bearer {self.faults.key}":
            raise Wrong(401, "Incorrect API key provided.", "invalid_api_key")
        try:
            body = json.loads(exchange.body)
        except ValueError as reason:
            raise Wrong(400, f"The body is not JSON: {reason}", "invalid_json") from reason
        self.check(body)
        return body  # type: ignore[no-any-return]

    def check(self, body: Any) -> None:
        """Raises `Wrong` for a request that this server doesn't take."""
        faults = self.faults
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise Wrong(400, "messages: a list of at least one message is required", "invalid_request_error")
        check_fields(body)
        if faults.models and body.get("model") not in faults.models:
            raise Wrong(404, f"The model `{body.get('model')}` does not exist.", "model_not_found")
        if body.get("stream"):
            raise Wrong(400, "This server does not stream.", "unsupported_value")
        if (body.get("n") or 1) > 1 and not faults.takes_n:
            raise Wrong(400, "n: only 1 is supported", "unsupported_value")
        form = (body.get("response_format") or {}).get("type", "text")
        if (form == "json_schema" and not faults.takes_schema) or (form != "text" and not faults.takes_json):
            raise Wrong(400, f"response_format: {form} is not supported by this model", "unsupported_parameter")
        if faults.context is not None and prompt_tokens(messages) + (limit(body) or 0) > faults.context:
            text = f"This model's maximum context length is {faults.context} tokens; the request asks for more."
            raise Wrong(400, text, "context_length_exceeded")

    def hint(self, wait: float) -> dict[str, str]:
        """Headers that say when to come again."""
        match self.faults.hint:
            case "seconds":
                return {"Retry-After": str(math.ceil(wait) if wait > 1 else round(wait, 3))}
            case "milliseconds":
                return {"retry-after-ms": f"{1000 * wait:.0f}"}
            case "date":
                return {"Retry-After": formatdate(time.time() + wait, usegmt=True)}
        return {}

    def _refuse(
        self,
        exchange: Exchange,
        entry: Entry,
        status: int,
        payload: object,
        headers: Mapping[str, str] | None = None,
        fault: str | None = None,
    ) -> None:
        self.journal.finished(entry, status, fault)
        exchange.reply(status, payload, headers)

    def _admit(self, exchange: Exchange, entry: Entry, body: dict[str, Any]) -> None:
        entry.attempt = self.journal.attempt(entry.key, entry.seed)
        fault = self.fault(entry)
        if fault is not None and fault in REFUSALS:
            status = 429 if fault == "quota" else int(fault)
            code = {"quota": "insufficient_quota", "429": "rate_limit_exceeded"}.get(fault, "server_error")
            headers = self.hint(self.faults.retry_after) if fault == "429" else None
            self._refuse(exchange, entry, status, error(status, MESSAGES[fault], code), headers, fault)
        elif fault == "hang":
            exchange.when_lost = lambda: self.journal.finished(entry, 499, fault)
        else:
            self._serve(exchange, entry, body, fault)

    def fault(self, entry: Entry) -> str | None:
        """What this request meets; each one takes a step of the script."""
        place, self._script = self._script, self._script + 1
        if place < len(self.faults.script):
            named = self.faults.script[place]
            return None if named == "ok" else named
        kinds = (*REFUSALS, *BREAKAGES)
        return draw.fault(self.faults.shares, kinds, self.faults.seed, entry.key, entry.seed, entry.attempt)

    def _serve(self, exchange: Exchange, entry: Entry, body: dict[str, Any], fault: str | None) -> None:
        seconds = draw.service(self.faults, last(body))
        self.gate.enter()
        self.journal.peak = max(self.journal.peak, self.gate.inside)
        if seconds == 0:
            self._answer(exchange, entry, body, fault, seconds)
            return
        timer = asyncio.get_running_loop().call_later(seconds, self._answer, exchange, entry, body, fault, seconds)

        def lost() -> None:
            timer.cancel()
            self.gate.leave()
            self.journal.finished(entry, 499, fault)

        exchange.when_lost = lost

    def _answer(
        self, exchange: Exchange, entry: Entry, body: dict[str, Any], fault: str | None, seconds: float
    ) -> None:
        exchange.when_lost = None
        self.gate.leave()
        try:
            served = self.replies.completion(body, entry.key)
        except ValueError as reason:
            self._refuse(exchange, entry, 400, error(400, str(reason), "invalid_request_error"))
            return
        if fault is None or fault in HARMLESS:
            entry.served, entry.service = len(served["choices"]), seconds
            if fault == "fewer":
                served["choices"] = served["choices"][: max(1, len(served["choices"]) // 2)]
                entry.served = len(served["choices"])
            self._book(served["usage"])
        self.journal.finished(entry, 0 if fault in ("drop", "cut") else 200, fault)
        if fault is None:
            exchange.reply(200, served)
        else:
            broken(exchange, served, fault, self.faults.slow)

    def _book(self, usage: Mapping[str, Any]) -> None:
        self.journal.prompt_tokens += usage["prompt_tokens"]
        self.journal.completion_tokens += usage["completion_tokens"]


def check_fields(body: Mapping[str, Any]) -> None:
    """Raises `Wrong` where a field that is read here has another type."""
    for name, low, high in (("n", 1, MOST_CHOICES), ("seed", -(1 << 63), 1 << 63)):
        value = body.get(name)
        if value is not None and not (type(value) is int and low <= value <= high):
            raise Wrong(400, f"{name}: a whole number from {low} to {high} is required", "invalid_value")
    if not isinstance(body.get("response_format") or {}, dict):
        raise Wrong(400, "response_format: an object is required", "invalid_type")
