"""The request log: an entry per HTTP request, made at its arrival, so that what was in flight at a kill is seen too."""

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Entry:
    """One HTTP request for a completion."""

    time: float
    """Unix seconds at its arrival."""
    key: str = ""
    """Digest of the request without `n` and `seed`."""
    seed: int = 0
    n: int = 1
    attempt: int = 0
    """0 for the first request of this key and seed that was let in, 1 for the second."""
    status: int | None = None
    """None while it is being answered; 0 where the connection was dropped; 499 where the client hung up before."""
    fault: str | None = None
    served: int = 0
    """Completions that went out with it: what the client has to pay for."""
    seconds: float = 0.0
    """From arrival to answer."""
    service: float = 0.0
    """Those of a completion that was served."""


class Journal:
    """Entries in order of arrival, and sums over them."""

    def __init__(self, file: Path | None = None) -> None:
        """Finished entries are added to the file as JSON lines."""
        self._stream = file.open("a", encoding="utf-8") if file else None
        self.clear()

    def clear(self) -> None:
        """Begin anew; what is in service stays in service."""
        self.entries: list[Entry] = []
        self.attempts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.completions = 0
        self.service = 0.0
        self.longest = 0.0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.peak = 0
        """Most requests in service at once."""

    def arrived(self) -> Entry:
        """A new entry."""
        entry = Entry(time.time())
        self.entries.append(entry)
        return entry

    def attempt(self, key: str, seed: int) -> int:
        """Number of this attempt; the next one's is higher."""
        name = f"{key}:{seed}"
        self.attempts[name] += 1
        return self.attempts[name] - 1

    def finished(self, entry: Entry, status: int, fault: str | None = None) -> None:
        """The request has been answered, dropped or given up by its client."""
        entry.status, entry.fault = status, fault
        entry.seconds = time.time() - entry.time
        self.statuses[status] += 1
        self.completions += entry.served
        self.service += entry.service
        self.longest = max(self.longest, entry.service)
        if fault is not None:
            self.faults[fault] += 1
        if self._stream is not None:
            self._stream.write(json.dumps(asdict(entry)) + "\n")
            self._stream.flush()

    def stats(self) -> dict[str, Any]:
        """Sums over all requests so far."""
        times = [entry.time for entry in self.entries]
        ends = [entry.time + entry.seconds for entry in self.entries if entry.status is not None]
        return {
            "requests": len(self.entries),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "faults": dict(self.faults),
            "completions": self.completions,
            "service_seconds": self.service,
            "longest_service": self.longest,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "peak_in_service": self.peak,
            "first": min(times, default=None),
            "last": max(ends, default=None),
        }
