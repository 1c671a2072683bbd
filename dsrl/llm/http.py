"""HTTP transport of chat completions: sends a request body, returns completions or raises `CallError`.

Uses aiohttp rather than the openai SDK, for two reasons. Each retry is decided and booked in one place (`retry`), so
nothing is paid twice unseen. And it is faster: on two cores with the server, every reply stored and booked, 950 to
1,600 requests/s at 0.6 to 0.9 ms CPU each, against 557 requests/s and 1.8 ms through the SDK (730 to 810 and 1.4 ms
with the SDK on aiohttp). The SDK serves the batch API (`batch.api`), which is off every hot path.
"""

import json
from typing import TYPE_CHECKING, Any, Protocol

from dsrl import __version__
from dsrl.core.errors import UserError
from dsrl.core.http_client import proxy_arguments, tls_context
from dsrl.data.images import ImageStore
from dsrl.data.images.prompt import embed_images
from dsrl.llm.completions import MAX_MESSAGE, Completions, error_text, is_page, read_completions, requested_delay
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, http_failure

if TYPE_CHECKING:
    import aiohttp

PUBLIC_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 30.0
KEEPALIVE_SECONDS = 60.0
MAX_BASE_BYTES = 1_000_000
MAX_BYTES_PER_TOKEN = 64
"""Bounds on the size of a body; reasoning and log probabilities are part of it."""


class Transport(Protocol):
    """Fetches completions for request bodies."""

    url: str

    @property
    def batch(self) -> bool:
        """Whether its requests are billed at the batch price."""

    async def send(self, body: dict[str, Any], call: str = "") -> Completions:
        """Raises `CallError`. `call` is the id of the first completion."""

    def status(self) -> str | None:
        """One line on its batch jobs; None if it has none. Safe from any thread."""

    async def close(self) -> None: ...


class HttpTransport:
    """A pool of connections to one endpoint, as large as its concurrency. Create it inside an event loop."""

    batch = False

    def __init__(self, endpoint: Endpoint, url: str | None, images: ImageStore | None = None) -> None:
        import aiohttp

        self.url = (url or PUBLIC_URL).rstrip("/")
        self._key = endpoint.api_key()
        self._timeout = endpoint.timeout
        self._max_tokens = endpoint.max_tokens
        self._images = images
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=endpoint.concurrency,
                keepalive_timeout=KEEPALIVE_SECONDS,
                ssl=tls_context() if self.url.startswith("https:") else True,
            ),
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout, sock_connect=min(CONNECT_SECONDS, endpoint.timeout)),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                "User-Agent": f"dsrl/{__version__}",
                **({} if self._key == "none" else {"Authorization": f"Bearer {self._key}"}),
                **endpoint.headers,
            },
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._proxy = proxy_arguments(self.url)

    async def send(self, body: dict[str, Any], call: str = "") -> Completions:  # noqa: ARG002
        """One HTTP request without retries."""
        import aiohttp

        target, data = f"{self.url}/chat/completions", json.dumps(embed_images(body, self._images)).encode()
        try:
            async with self._session.post(target, data=data, **self._proxy) as answer:
                content = await self._read(answer, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a timeout is an OSError
            raise self._connection_failure(error) from error
        if answer.status >= 300:
            raise self._status_failure(answer, content)
        try:
            return read_completions(content)
        except CallError as failure:
            failure.args = (self._mask(str(failure)),)
            raise

    async def _read(self, answer: "aiohttp.ClientResponse", body: dict[str, Any]) -> bytes:
        """The body after decompression. Raises `CallError` if it is longer than any reply to the request can be."""
        tokens = body.get("max_tokens") or body.get("max_completion_tokens") or self._max_tokens
        limit = MAX_BASE_BYTES + tokens * body.get("n", 1) * MAX_BYTES_PER_TOKEN
        content = bytearray()
        async for block in answer.content.iter_any():
            content += block
            if len(content) > limit:
                raise CallError("reply", f"a body of more than {limit} bytes", billed=answer.status < 300)
        return bytes(content)

    def _mask(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key != "none" else text

    def status(self) -> None:
        """There are no batch jobs."""

    async def close(self) -> None:
        await self._session.close()

    def _status_failure(self, answer: "aiohttp.ClientResponse", content: bytes) -> CallError:
        text = content.decode("utf-8", "replace")
        code, message = error_text(text)
        message = self._mask(message)[:MAX_MESSAGE]
        failure = http_failure(answer.status, code, message, answer.headers, is_page(text))
        failure.retry_after = requested_delay(text) if failure.retry_after is None else failure.retry_after
        return failure

    def _connection_failure(self, error: Exception) -> CallError:
        import aiohttp

        not_connected = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError
        if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
            advice = "if the server's certificate is signed by an authority of your own, set SSL_CERT_FILE to its file"
            return CallError("unreachable", f"{error}; {advice}")
        if isinstance(error, not_connected):
            return CallError("unreachable", str(error) or type(error).__name__)
        if isinstance(error, TimeoutError):
            return CallError("timeout", f"no answer within {self._timeout:g} s")
        if isinstance(error, ValueError):  # an invalid URL, header or proxy; its text may hold the key
            what = type(error).__name__
            raise UserError(f"no request can be sent to {self.url}", got=what, next_step="check base_url and the key")
        if isinstance(error, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)):
            return CallError("reply", f"{type(error).__name__}: {error}")
        return CallError("connection", str(error) or type(error).__name__)
