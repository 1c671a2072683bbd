"""The way to the server: the official client in an event loop of its own, for code that isn't asynchronous."""

import asyncio
import re
import weakref
from collections.abc import Coroutine
from threading import Thread, current_thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dsrl.stages.retrieve.elastic.access import Access
from dsrl.stages.retrieve.elastic.failures import explained

if TYPE_CHECKING:
    from elastic_transport import AiohttpHttpNode
    from elasticsearch import AsyncElasticsearch

Result = TypeVar("Result")
BUSY = (429, 502, 503, 504)
"""Statuses after which a request is sent again."""
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
"""Seconds between tries, drawn between nought and a bound that doubles."""
VENDORED = re.compile(r"application/vnd\.elasticsearch\+([\w-]+);\s*compatible-with=\d+")
"""How the client asks for the replies of its own release; servers of other releases refuse that."""


class Connection:
    """Open until closed, or until nobody holds it. What the server refuses is raised as a `UserError`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._loop = asyncio.new_event_loop()
        thread = Thread(target=_turn, args=(self._loop,), name="elasticsearch", daemon=True)
        thread.start()
        self.client = self.run(_connected(access))
        self.close = weakref.finalize(self, _shut, self._loop, thread, self.client)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What the coroutine returns. An interrupt cancels it."""
        from elasticsearch import ApiError
        from elasticsearch.exceptions import TransportError

        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (ApiError, TransportError) as error:
            raise explained(error, self._access) from error
        finally:
            future.cancel()


async def _connected(access: Access) -> "AsyncElasticsearch":
    from elasticsearch import AsyncElasticsearch

    return AsyncElasticsearch(
        **access.arguments(),
        node_class=_plain_node(),
        request_timeout=access.timeout,
        max_retries=access.retries,
        retry_on_timeout=True,
        retry_on_status=BUSY,
        retry_backoff_base=FIRST_WAIT,
        retry_backoff_cap=LONGEST_WAIT,
    )


def _plain_node() -> "type[AiohttpHttpNode]":
    """Speaks plain JSON, which servers of releases 7, 8 and 9 all take."""
    from elastic_transport import AiohttpHttpNode, HttpHeaders

    class PlainNode(AiohttpHttpNode):
        async def perform_request(  # type: ignore[override]  # as in its base, which is asynchronous
            self, method: str, target: str, body: bytes | None = None, headers: Any = None, request_timeout: Any = None
        ) -> Any:
            plain = HttpHeaders({name: VENDORED.sub(r"application/\1", value) for name, value in headers.items()})
            return await super().perform_request(method, target, body, plain, request_timeout)

    return PlainNode


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _shut(loop: asyncio.AbstractEventLoop, thread: Thread, client: "AsyncElasticsearch") -> None:
    async def end() -> None:
        await client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    if thread is not current_thread():
        thread.join(LONGEST_WAIT)
