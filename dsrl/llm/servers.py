"""The servers that a run starts itself, each once, and stops at its end."""

from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dsrl.core.component import to_key_value
from dsrl.core.digest import digest

if TYPE_CHECKING:
    from dsrl.llm.endpoint import Endpoint, Running


class Servers:
    """Started on first use. A context manager: all are stopped when it is left."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self._lock = Lock()

    def url(self, endpoint: "Endpoint") -> str | None:
        """Where the endpoint listens, now that its server runs; None: at the public URL of OpenAI."""
        if endpoint.server is None:
            return endpoint.base_url
        key = digest(to_key_value(endpoint.server))
        with self._lock:
            if key not in self._running:
                self._running[key] = endpoint.server.start()
            return self._running[key].url

    def close(self) -> None:
        with self._lock:
            while self._running:
                self._running.popitem()[1].stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
