"""The fault server itself: a public port that may go down, and one for its control that never does."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tests.support.faultserver.batches import Batches
from tests.support.faultserver.chat import Chat
from tests.support.faultserver.faults import Faults
from tests.support.faultserver.http import Exchange, Handler, Routes, error
from tests.support.faultserver.journal import Journal
from tests.support.faultserver.listener import Listener
from tests.support.faultserver.replies import MODEL

FAULTS = TypeAdapter(Faults)
OFTEN = 0.01
"""Seconds between looks at the schedule of outages."""


class App:
    """Finds who answers a request."""

    def __init__(self, faults: Faults, log: Path | None = None) -> None:
        self.faults = faults
        self.journal = Journal(log)
        self.chat = Chat(faults, self.journal)
        self.batches = Batches(self.chat)
        self.routes = Routes({**self.public(), **self.control()})

    def public(self) -> Mapping[tuple[str, str], Handler]:
        """What an OpenAI client knows."""
        return {
            ("POST", "/v1/chat/completions"): self.chat.handle,
            ("GET", "/v1/models"): self.models,
            ("GET", "/v1/models/{name}"): self.model,
            **self.batches.routes(),
        }

    def control(self) -> Mapping[tuple[str, str], Handler]:
        """What tests and benchmarks ask."""
        return {
            ("GET", "/log"): self.log,
            ("GET", "/stats"): self.stats,
            ("POST", "/control"): self.change,
        }

    def handle(self, exchange: Exchange) -> None:
        """Answers any request."""
        handler = self.routes.find(exchange)
        if handler is None:
            exchange.reply(404, error(404, f"Invalid URL ({exchange.method} {exchange.path})", "unknown_url"))
        else:
            handler(exchange)

    def models(self, exchange: Exchange) -> None:
        """The list of models."""
        exchange.reply(200, {"object": "list", "data": [_model(name) for name in self.faults.models or (MODEL,)]})

    def model(self, exchange: Exchange) -> None:
        """One of them."""
        name = exchange.parameters["name"]
        if self.faults.models and name not in self.faults.models:
            exchange.reply(404, error(404, f"The model '{name}' does not exist", "model_not_found"))
        else:
            exchange.reply(200, _model(name))

    def log(self, exchange: Exchange) -> None:
        """The journal, from entry `from` on."""
        start = int(exchange.arguments().get("from", 0))
        exchange.reply(200, [asdict(entry) for entry in self.journal.entries[start:]])

    def stats(self, exchange: Exchange) -> None:
        """Sums over the journal, and how the server stands now."""
        gate = self.chat.gate
        now = {"in_service": gate.inside, "capacity": gate.capacity(), "age": gate.age}
        exchange.reply(200, {**self.journal.stats(), **now})

    def change(self, exchange: Exchange) -> None:
        """Takes new values of some of the faults; `clear: true` empties the journal, `restart: true` sets the server's
        age, by which schedules go, back to 0."""
        try:
            self._change(json.loads(exchange.body))
        except (ValidationError, ValueError, TypeError) as reason:
            exchange.reply(400, error(400, str(reason), "invalid_control"))
        else:
            exchange.reply(200, {"ok": True})

    def _change(self, changes: dict[str, Any]) -> None:
        clear, restart = changes.pop("clear", False), changes.pop("restart", False)
        known = FAULTS.dump_python(self.faults, mode="json")
        faults = FAULTS.validate_json(json.dumps({**known, **changes}))
        self.chat.change(faults)
        self.faults = faults
        if clear:
            self.journal.clear()
        if restart:
            self.chat.gate.restart()

    @property
    def refuses(self) -> bool:
        """Whether nobody listens on the public port now."""
        return "refuse" in (self.faults.down, self.chat.gate.outage())


async def run(app: App, public: Listener) -> None:
    """Until cancelled, keeps the public port closed while the server is down, and open else."""
    while True:
        if app.refuses:
            public.close()
        else:
            await public.open()
        await asyncio.sleep(OFTEN)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "dsrl"}
