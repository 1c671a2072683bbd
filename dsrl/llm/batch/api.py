"""`/v1/files` and `/v1/batches` of an endpoint, through the OpenAI SDK. Failures are `CallError`s, never repeated."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.llm.batch.journal import Job
from dsrl.llm.completions import LONGEST_MESSAGE
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, refused

if TYPE_CHECKING:
    from openai.types import Batch

METADATA = "dsrl"
MOST_LISTED = 1000
"""Batches among which one is looked for, the newest first."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SLOW_SECONDS = 600.0
"""Time for an upload or a download, at least."""
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class Report:
    """A batch as the provider sees it."""

    batch_id: str
    status: str
    completed: int = 0
    failed: int = 0
    total: int = 0
    output: str | None = None
    errors: str | None = None
    problem: str = ""
    """Why it failed as a whole."""
    code: str = ""

    @property
    def over(self) -> bool:
        return self.status in OVER

    @classmethod
    def of(cls, batch: "Batch") -> "Report":
        counts = batch.request_counts
        faults = (batch.errors and batch.errors.data) or []
        return cls(
            batch.id,
            batch.status,
            counts.completed if counts else 0,
            counts.failed if counts else 0,
            counts.total if counts else 0,
            batch.output_file_id,
            batch.error_file_id,
            "; ".join(f"line {fault.line}: {fault.message}" if fault.line else str(fault.message) for fault in faults),
            next((fault.code for fault in faults if fault.code), ""),
        )


class BatchApi:
    """Made inside an event loop."""

    def __init__(self, endpoint: Endpoint, url: str | None) -> None:
        import httpx2
        from openai import AsyncOpenAI

        seconds = max(SLOW_SECONDS, endpoint.timeout)
        local = url is not None and httpx2.URL(url).host in LOOPBACK
        self._key = endpoint.api_key()
        self._client = AsyncOpenAI(
            api_key=self._key,
            base_url=url,
            max_retries=0,
            timeout=seconds,
            default_headers=endpoint.headers,
            http_client=httpx2.AsyncClient(timeout=seconds, follow_redirects=True, trust_env=not local),
        )
        self.url = str(self._client.base_url).rstrip("/")

    async def upload(self, path: Path) -> str:
        """Id of the file."""
        async with self._said():
            return (await self._client.files.create(file=path, purpose="batch")).id

    async def create(self, job: Job) -> Report:
        assert job.file_id is not None
        async with self._said():
            batch = await self._client.batches.create(
                input_file_id=job.file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={METADATA: job.name},
            )
        return Report.of(batch)

    async def look(self, batch_id: str) -> Report:
        async with self._said():
            return Report.of(await self._client.batches.retrieve(batch_id))

    async def find(self, job: Job) -> Report | None:
        """The job's batch if it was created without our knowing, among the latest ones."""
        async with self._said():
            number = 0
            async for batch in self._client.batches.list(limit=100):
                named = (batch.metadata or {}).get(METADATA) == job.name
                if named or (job.file_id is not None and batch.input_file_id == job.file_id):
                    return Report.of(batch)
                number += 1
                if number >= MOST_LISTED:
                    break
        return None

    async def download(self, file_id: str, path: Path) -> None:
        """The whole file or none of it."""
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        async with self._said(), self._client.files.with_streaming_response.content(file_id) as answer:
            with draft.open("wb") as file:
                async for block in answer.iter_bytes(1 << 20):
                    file.write(block)
        draft.replace(path)

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _said(self) -> AsyncIterator[None]:
        """Turns the SDK's errors into ours."""
        import httpx2
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            raise self._refused(error) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__
            unreachable = isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout))
            raise CallError("unreachable" if unreachable else "connection", str(cause or error)) from error
        except httpx2.HTTPError as error:
            raise CallError("connection", str(error) or type(error).__name__) from error
        except (openai.APIResponseValidationError, AttributeError, ValueError) as error:
            raise CallError("reply", f"not what a batch API says: {error}"[:LONGEST_MESSAGE]) from error

    def _refused(self, error: Any) -> CallError:
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        message = str(body.get("message") or error.response.text)[:LONGEST_MESSAGE]
        message = message.replace(self._key, "***") if self._key != "none" else message
        return refused(error.status_code, code, message, error.response.headers)
