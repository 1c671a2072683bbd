"""A fault server in a child process, from the point of view of who started it."""

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from dsrl.core import child_process
from dsrl.core.errors import StageFailed
from tests.support.faultserver.faults import HARMLESS, Faults

SECONDS = 30.0
"""Longest wait for an answer of the control port."""


@dataclass(frozen=True)
class FaultServer:
    """A fault server that listens."""

    url: str
    """The base URL an OpenAI client is given."""
    control: str
    """Where it answers even while it is down."""
    pid: int

    def stats(self) -> dict[str, Any]:
        """Sums over all requests so far; see `Journal.stats`."""
        return _ask(f"{self.control}/stats")  # type: ignore[no-any-return]

    def log(self, start: int = 0) -> list[dict[str, Any]]:
        """One entry per request for a completion, in order of arrival; see `Entry` for its fields."""
        return _ask(f"{self.control}/log?from={start}")  # type: ignore[no-any-return]

    def set(self, **changes: Any) -> None:
        """Change fields of `Faults` while it runs; `clear=True` empties the log, `restart=True` sets the server's age
        back to 0. Raises `ValueError` for what doesn't fit."""
        known = TypeAdapter(Faults).dump_python(Faults(), mode="json")
        plain = TypeAdapter(dict[str, Any]).dump_python(changes, mode="json")
        if unknown := set(plain) - set(known) - {"clear", "restart"}:
            raise ValueError(f"not fields of Faults: {', '.join(sorted(unknown))}")
        answer = _ask(f"{self.control}/control", plain)
        if "error" in answer:
            raise ValueError(answer["error"]["message"])

    def paid(self) -> Counter[tuple[str, int]]:
        """(request, seed of the choice) -> how often it was brought; more than once is paid for more than once."""
        return paid(self.log())


def paid(log: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """What `FaultServer.paid` says, of a log or of a part of one."""
    good = [entry for entry in log if entry["status"] == 200 and entry["fault"] in (None, *HARMLESS)]
    return Counter((entry["key"], entry["seed"] + choice) for entry in good for choice in range(entry["served"]))


@contextmanager
def serve(faults: Faults | None = None, port: int = 0, log: Path | None = None) -> Iterator[FaultServer]:
    """Run a server that does this until the block, or this process, ends. `log`: finished requests, as JSON lines."""
    made = TypeAdapter(Faults).dump_json(faults or Faults()).decode()
    arguments = ["serve", "--child", "--json", made, "--port", str(port), *(["--log", str(log)] if log else [])]
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors.log"
        process = child_process.start("tests.support.faultserver", arguments, errors, None, subprocess.PIPE)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise StageFailed("the fault server didn't start", got=child_process.tail(errors))
            yield FaultServer(pid=process.pid, **json.loads(line))
        finally:
            child_process.stop(process)


def _ask(url: str, payload: object = None) -> Any:
    where = urlsplit(url)
    connection = HTTPConnection(where.netloc, timeout=SECONDS)
    try:
        method, data = ("GET", None) if payload is None else ("POST", json.dumps(payload))
        connection.request(method, url.removeprefix(f"http://{where.netloc}"), data, {"Connection": "close"})
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
