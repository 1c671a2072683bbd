"""The one place that speaks HTTP: a request body goes out, completions or a `CallError` come back.

It stands on aiohttp and not on the openai SDK, which adds nothing to one POST that dsrl doesn't do itself (retries,
time-outs, reading the reply) and costs most of the time. Side by side on two cores, a server included, with every reply
stored and booked: 557 requests/s and 1.8 ms of CPU each over the SDK, 730 to 810 and 1.4 ms over the SDK's own aiohttp
transport, 950 to 1,600 and 0.6 to 0.9 ms here.
"""

import json
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from dsrl import __version__
from dsrl.core.errors import UserError
from dsrl.data.images import ImageStore
from dsrl.data.images.prompt import embed_images
from dsrl.llm.completions import LONGEST_MESSAGE, Completions, asked_pause, error_text, is_page, read_completions
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, refused

if TYPE_CHECKING:
    import aiohttp

PUBLIC_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 30.0
KEPT_SECONDS = 60.0
"""How long an idle connection is kept."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Transport(Protocol):
    """Brings completions for request bodies."""

    url: str

    @property
    def batch(self) -> bool:
        """Whether what it brings is billed at the batch price."""

    async def send(self, body: dict[str, Any], call: str = "") -> Completions:
        """Raises `CallError`; repeats nothing that the endpoint has answered. `call` names the first completion."""

    def status(self) -> str | None:
        """How its jobs stand, in words; None where it has none. From any thread."""

    async def close(self) -> None: ...


class Wire:
    """A pool of connections to one endpoint, as wide as its concurrency. Made inside an event loop."""

    batch = False

    def __init__(self, endpoint: Endpoint, url: str | None, images: ImageStore | None = None) -> None:
        import aiohttp

        self.url = (url or PUBLIC_URL).rstrip("/")
        self._key = endpoint.api_key()
        self._seconds = endpoint.timeout
        self._images = images
        seconds = aiohttp.ClientTimeout(total=endpoint.timeout, sock_connect=min(CONNECT_SECONDS, endpoint.timeout))
        tls = _tls() if self.url.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=endpoint.concurrency, keepalive_timeout=KEPT_SECONDS, ssl=tls),
            timeout=seconds,
            headers=_headers(endpoint, self._key),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._proxy = _proxy(self.url)

    async def send(self, body: dict[str, Any], call: str = "") -> Completions:  # noqa: ARG002
        """One HTTP request, never repeated here."""
        import aiohttp

        target, data = f"{self.url}/chat/completions", json.dumps(embed_images(body, self._images)).encode()
        try:
            async with self._session.post(target, data=data, **self._proxy) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a time-out is an OSError
            raise self._unanswered(error) from error
        if answer.status >= 300:
            raise self._refused(answer, content)
        return read_completions(content)

    def status(self) -> None:
        """There are no jobs."""

    async def close(self) -> None:
        await self._session.close()

    def _refused(self, answer: "aiohttp.ClientResponse", content: bytes) -> CallError:
        text = content.decode("utf-8", "replace")
        code, message = error_text(text)
        message = message.replace(self._key, "***") if self._key != "none" else message
        failure = refused(answer.status, code, message[:LONGEST_MESSAGE], answer.headers, is_page(text))
        failure.retry_after = asked_pause(text) if failure.retry_after is None else failure.retry_after
        return failure

    def _unanswered(self, error: Exception) -> CallError:
        import aiohttp

        nobody = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError
        if isinstance(error, nobody):
            return CallError("unreachable", str(error) or type(error).__name__)
        if isinstance(error, TimeoutError):
            return CallError("timeout", f"no answer within {self._seconds:g} s")
        if isinstance(error, ValueError):  # a URL, a header or a proxy that HTTP has no room for; the text may be a key
            what = type(error).__name__
            raise UserError(f"no request can be sent to {self.url}", got=what, next_step="check base_url and the key")
        if isinstance(error, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)):
            return CallError("reply", f"{type(error).__name__}: {error}")
        return CallError("connection", str(error) or type(error).__name__)


def _headers(endpoint: Endpoint, key: str) -> dict[str, str]:
    own = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"dsrl/{__version__}"}
    return own | ({} if key == "none" else {"Authorization": f"Bearer {key}"}) | endpoint.headers


def _tls() -> Any:
    """Certificates as the SDKs of the providers check them, wherever the machine keeps its own."""
    import httpx2

    return httpx2.create_ssl_context()


def _proxy(url: str) -> dict[str, Any]:
    """The environment's proxy, as arguments of a request; never one for this machine itself."""
    import urllib.request

    import aiohttp

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return {}
    proxies = urllib.request.getproxies()
    proxy = urlsplit(proxies.get(parts.scheme) or proxies.get("all") or "")
    if not proxy.hostname:
        return {}
    bare = proxy._replace(netloc=proxy.netloc.rpartition("@")[2]).geturl()
    if proxy.username is None:
        return {"proxy": bare}
    login = aiohttp.encode_basic_auth(unquote(proxy.username), unquote(proxy.password or ""))
    place = "headers" if parts.scheme == "http" else "proxy_headers"  # plain HTTP has no CONNECT to put it into
    return {"proxy": bare, place: {"Proxy-Authorization": login}}
