"""The request log. Entries are made on arrival, so that it also shows what was in flight when a client was killed."""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class LogEntry:
    """One request for completions."""

    time: float
    """Unix time of arrival."""
    key: str = ""
    """Digest of the request without `n` and `seed`."""
    seed: int = 0
    n: int = 1
    attempt: int = 0
    """Number of admitted requests with this key and seed before this one."""
    status: int | None = None
    """None: in progress; 0: connection dropped by the server; 499: client disconnected before the response."""
    fault: str | None = None
    served: int = 0
    """Completions delivered, which the client has to pay for."""
    seconds: float = 0.0
    """Time from arrival to response."""
    service: float = 0.0
    """Service time of delivered completions."""


class RequestLog:
    """Entries in order of arrival, and sums over them."""

    def __init__(self, file: Path | None = None) -> None:
        """Finished entries are appended to `file` as JSON lines."""
        self._stream = file.open("a", encoding="utf-8") if file else None
        self.clear()

    def clear(self) -> None:
        self.entries: list[LogEntry] = []
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.peak_in_service = 0

    def start(self) -> LogEntry:
        entry = LogEntry(time.time())
        self.entries.append(entry)
        return entry

    def count_attempt(self, entry: LogEntry) -> None:
        """Set the entry's attempt number."""
        entry.attempt = self.attempts[entry.key, entry.seed]
        self.attempts[entry.key, entry.seed] += 1

    def finish(self, entry: LogEntry, status: int, fault: str | None = None) -> None:
        """Record the outcome of a request. The first call counts."""
        if entry.status is not None:
            return
        entry.status, entry.fault = status, fault
        entry.seconds = time.time() - entry.time
        if self._stream is not None:
            self._stream.write(json.dumps(asdict(entry)) + "\n")
            self._stream.flush()

    def stats(self) -> dict[str, Any]:
        done = [entry for entry in self.entries if entry.status is not None]
        statuses = Counter(str(entry.status) for entry in done)
        return {
            "requests": len(self.entries),
            "statuses": dict(sorted(statuses.items())),
            "faults": dict(Counter(entry.fault for entry in done if entry.fault is not None)),
            "completions": sum(entry.served for entry in done),
            "service_seconds": sum(entry.service for entry in done),
            "longest_service": max((entry.service for entry in done), default=0.0),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "peak_in_service": self.peak_in_service,
            "first": min((entry.time for entry in self.entries), default=None),
            "last": max((entry.time + entry.seconds for entry in done), default=None),
        }
