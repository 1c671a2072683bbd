"""Start a fault server in a child process and control it."""

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

TIMEOUT = 30.0
"""Seconds to wait for a response of the control port."""


@dataclass(frozen=True)
class FaultServer:
    """A running fault server."""

    url: str
    """Base URL for an OpenAI client."""
    control: str
    """URL of the control port, which answers during outages too."""
    pid: int

    def stats(self) -> dict[str, Any]:
        """Sums over all requests so far; see `RequestLog.stats`."""
        return self._send("stats")  # type: ignore[no-any-return]

    def log(self, start: int = 0) -> list[dict[str, Any]]:
        """Requests for completions in order of arrival; see `LogEntry` for the fields."""
        return self._send(f"log?from={start}")  # type: ignore[no-any-return]

    def set(self, **changes: Any) -> None:
        """Change fields of `Faults` while the server runs.

        `clear=True` empties the log, `restart=True` sets the server's age back to 0. Raises `ValueError` for unknown
        fields and invalid values.
        """
        plain = TypeAdapter(dict[str, Any]).dump_python(changes, mode="json")
        if unknown := set(plain) - set(Faults.__dataclass_fields__) - {"clear", "restart"}:  # type: ignore[attr-defined]
            raise ValueError(f"not fields of Faults: {', '.join(sorted(unknown))}")
        answer = self._send("control", plain)
        if "error" in answer:
            raise ValueError(answer["error"]["message"])

    def paid(self) -> Counter[tuple[str, int]]:
        """(request key, seed of the choice) -> how often it was delivered. More than once means paid for twice."""
        return paid(self.log())

    def _send(self, path: str, payload: object = None) -> Any:
        connection = HTTPConnection(urlsplit(self.control).netloc, timeout=TIMEOUT)
        try:
            if payload is None:
                connection.request("GET", f"/{path}")
            else:
                connection.request("POST", f"/{path}", json.dumps(payload))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def paid(log: list[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """As `FaultServer.paid`, for a part of the log."""
    good = [entry for entry in log if entry["status"] == 200 and entry["fault"] in (None, *HARMLESS)]
    return Counter((entry["key"], entry["seed"] + choice) for entry in good for choice in range(entry["served"]))


@contextmanager
def serve(faults: Faults | None = None, port: int = 0, log: Path | None = None) -> Iterator[FaultServer]:
    """Run a fault server until the block, or this process, ends. Finished requests go to `log` as JSON lines."""
    description = TypeAdapter(Faults).dump_json(faults or Faults()).decode()
    arguments = ["serve", "--child", "--json", description, "--port", str(port), *(["--log", str(log)] if log else [])]
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
