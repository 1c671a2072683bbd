"""A JSON client for the HTTP interface that Elasticsearch and OpenSearch share.

Neither of the official clients is used: each refuses the other's servers, the one for Elasticsearch also servers of
other releases, and both follow redirects with the passages in the request. The dozen calls made here are the same on
all servers.
"""

import asyncio
import json
import random
import ssl
import time
import weakref
from collections.abc import Callable, Coroutine
from threading import Thread, current_thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dsrl import __version__
from dsrl.core.errors import UserError
from dsrl.core.http_client import proxy_arguments
from dsrl.stages.retrieve.search_server.access import Access
from dsrl.stages.retrieve.search_server.errors import NoReply, ServerError, explain, not_a_search_server

if TYPE_CHECKING:
    import aiohttp

Result = TypeVar("Result")
FIRST_BACKOFF, MAX_BACKOFF = 0.2, 10.0
"""Seconds between retries: random, up to a bound that doubles."""
FIRST_PATIENCE = 5.0
"""Seconds for which a server is retried that has not answered yet."""
CONNECT_TIMEOUT = 10.0


class SearchClient:
    """Sends requests from an event loop in a thread of its own, so that synchronous code can use it."""

    def __init__(self, access: Access, say: Callable[[str], None] = lambda _: None) -> None:
        """`say` gets a line when the server stops answering and when it answers again."""
        self.access = access
        self._say = say
        self._addresses = access.addresses
        self._answered = False
        self._down_since: float | None = None
        tls = access.tls()
        self._loop = asyncio.new_event_loop()
        thread = Thread(target=self._loop.run_forever, name="search-server", daemon=True)
        thread.start()
        self._session = asyncio.run_coroutine_threadsafe(_open_session(access, tls), self._loop).result()
        self.close = weakref.finalize(self, _close, self._loop, thread, self._session)

    def __enter__(self) -> "SearchClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end; an interrupt cancels it. Errors of the server become a `UserError`."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except (ServerError, NoReply) as error:
            raise explain(error, self.access) from error
        finally:
            future.cancel()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """`request`, for synchronous code."""
        return self.run(self.request(method, path, body))

    async def request(self, method: str, path: str, body: Any = None, patience: float | None = None) -> Any:
        """Send JSON, or bytes of newline-delimited JSON, and return the parsed reply.

        Busy servers and outages are retried, each retry at the next address. Raises `ServerError` or `NoReply`.
        """
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        retry = Retry(self.access, patience if patience is not None else self.patience)
        while True:
            try:
                reply = await self._send(method, path, data)
            except (ServerError, NoReply) as error:
                if isinstance(error, NoReply) or error.is_outage:
                    self._addresses.append(self._addresses.pop(0))
                    self._report_outage(error)
                await retry.wait(error)
            else:
                self._report_recovery()
                return reply

    @property
    def patience(self) -> float:
        """Seconds for which an outage is retried now."""
        return self.access.patience if self._answered else min(FIRST_PATIENCE, self.access.patience)

    async def _send(self, method: str, path: str, data: bytes | None) -> Any:
        import aiohttp

        address = self._addresses[0]
        kind = "application/x-ndjson" if path.partition("?")[0].endswith(("_bulk", "_msearch")) else "application/json"
        proxy = proxy_arguments(address)
        headers = {"Content-Type": kind, **proxy.pop("headers", {})}
        try:
            async with self._session.request(
                method, address + path, data=data, headers=headers, allow_redirects=False, **proxy
            ) as reply:
                content = await reply.read()
        except aiohttp.ClientSSLError as error:
            raise NoReply(address, str(error), tls=True) from error
        except TimeoutError as error:
            raise NoReply(address, f"no reply within {self.access.timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoReply(address, str(error) or type(error).__name__) from error
        if 300 <= reply.status < 400:
            raise UserError(
                f"search server: {address} redirects to another address, to which nothing is sent",
                got=reply.headers.get("Location", f"HTTP {reply.status}"),
                next_step="set retriever.url to the address of the server itself",
            )
        text = content.decode("utf-8", "replace")
        try:
            parsed = json.loads(text)
        except ValueError:
            if reply.status < 300:
                raise not_a_search_server(address, text) from None
            parsed = text
        if reply.status >= 400:
            raise ServerError(reply.status, parsed, method, path.partition("?")[0])
        self._answered = True
        return parsed

    def _report_outage(self, error: ServerError | NoReply) -> None:
        if self._down_since is None:
            self._down_since = time.monotonic()
            if self._answered:
                what = error.reason
                self._say(f"search server: no reply ({what}); retrying for up to {self.access.patience:g} s")

    def _report_recovery(self) -> None:
        if self._down_since is not None:
            self._say(f"search server: answers again after {time.monotonic() - self._down_since:.0f} s")
            self._down_since = None


class Retry:
    """Waits between the attempts of one request, and gives up in time."""

    def __init__(self, access: Access, patience: float) -> None:
        self._retries, self._patience = access.retries, patience
        self._deadline: float | None = None
        self._num_busy = self._num_waits = 0

    async def wait(self, error: ServerError | NoReply) -> None:
        """Sleep before the next attempt. Raises `error` if retrying won't help, or for too long already."""
        if isinstance(error, ServerError) and error.status == 429:
            self._num_busy += 1
            if self._num_busy > self._retries:
                raise error
        elif (isinstance(error, NoReply) and error.tls) or (isinstance(error, ServerError) and not error.is_outage):
            raise error
        elif self._deadline is None:
            self._deadline = time.monotonic() + self._patience
        elif time.monotonic() > self._deadline:
            raise error
        bound = min(FIRST_BACKOFF * 2**self._num_waits, MAX_BACKOFF)
        self._num_waits += 1
        await asyncio.sleep(random.uniform(bound / 2, bound))


async def _open_session(access: Access, tls: ssl.SSLContext | None) -> "aiohttp.ClientSession":
    import aiohttp

    headers = {"Accept": "application/json", "User-Agent": f"dsrl/{__version__}"}
    headers["Accept-Encoding"] = "identity"  # compressing the replies takes longer than sending them
    if authorization := access.authorization():
        headers["Authorization"] = authorization
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True),
        timeout=aiohttp.ClientTimeout(total=access.timeout, sock_connect=min(CONNECT_TIMEOUT, access.timeout)),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _close(loop: asyncio.AbstractEventLoop, thread: Thread, session: "aiohttp.ClientSession") -> None:
    asyncio.run_coroutine_threadsafe(session.close(), loop).add_done_callback(
        lambda _: loop.call_soon_threadsafe(loop.stop)
    )
    if thread is not current_thread():
        thread.join(MAX_BACKOFF)
        if not loop.is_running():
            loop.close()
