"""The provider's side of batch jobs: `/v1/files` and `/v1/batches` through the openai SDK, and the steps of one job.

`BatchApi` makes single calls and raises `CallError`. `JobRunner` takes a job through its steps, waits out transient
failures, and records each step in the journal before the next.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.http_client import LOOPBACK
from dsrl.llm.batch.journal import BatchJob, JobJournal
from dsrl.llm.completions import MAX_MESSAGE
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, final_error, http_failure

if TYPE_CHECKING:
    from openai.types import Batch

METADATA_KEY = "dsrl"
MAX_LISTED = 1000
"""Newest batches among which a lost one is searched."""
TRANSFER_SECONDS = 600.0
"""Minimum timeout of an upload or a download."""
FINISHED_STATUS = ("completed", "failed", "expired", "cancelled")
TRANSIENT_KINDS = ("throttled", "server", "timeout", "connection", "unreachable")
"""Failures of the batch API itself that are waited out."""
CONNECT_ATTEMPTS = 3
LOG_SECONDS = 60.0

Value = TypeVar("Value")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchStatus:
    """A batch as the provider describes it."""

    batch_id: str
    status: str
    completed: int = 0
    failed: int = 0
    total: int = 0
    output: str | None = None
    """Id of the file of replies."""
    errors: str | None = None
    """Id of the file of errors."""
    problem: str = ""
    """Why the batch failed as a whole."""
    code: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED_STATUS

    @classmethod
    def of(cls, batch: "Batch") -> "BatchStatus":
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
    """Single calls of the batch API. Create it inside an event loop."""

    def __init__(self, endpoint: Endpoint, url: str | None) -> None:
        import httpx2
        from openai import AsyncOpenAI

        seconds = max(TRANSFER_SECONDS, endpoint.timeout)
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
        """Id of the uploaded file."""
        async with self._call_errors():
            return (await self._client.files.create(file=path, purpose="batch")).id

    async def create(self, job: BatchJob) -> BatchStatus:
        assert job.file_id is not None
        async with self._call_errors():
            batch = await self._client.batches.create(
                input_file_id=job.file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={METADATA_KEY: job.name},
            )
        return BatchStatus.of(batch)

    async def status(self, batch_id: str) -> BatchStatus:
        async with self._call_errors():
            return BatchStatus.of(await self._client.batches.retrieve(batch_id))

    async def find(self, job: BatchJob) -> BatchStatus | None:
        """The job's batch among the newest ones, if it was created but the response was lost."""
        async with self._call_errors():
            number = 0
            async for batch in self._client.batches.list(limit=100):
                named = (batch.metadata or {}).get(METADATA_KEY) == job.name
                if named or (job.file_id is not None and batch.input_file_id == job.file_id):
                    return BatchStatus.of(batch)
                number += 1
                if number >= MAX_LISTED:
                    break
        return None

    async def download(self, file_id: str, path: Path) -> None:
        """Write the whole file, or nothing."""
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        async with self._call_errors(), self._client.files.with_streaming_response.content(file_id) as answer:
            with draft.open("wb") as file:
                async for block in answer.iter_bytes(1 << 20):
                    file.write(block)
        draft.replace(path)

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _call_errors(self) -> AsyncIterator[None]:
        """Raise the SDK's exceptions as `CallError`."""
        import httpx2
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            raise self._status_failure(error) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__
            unreachable = isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout))
            raise CallError("unreachable" if unreachable else "connection", str(cause or error)) from error
        except httpx2.HTTPError as error:  # while a streamed file is read
            raise CallError("connection", str(error) or type(error).__name__) from error
        except (openai.APIResponseValidationError, AttributeError, ValueError) as error:
            raise CallError("reply", f"not a response of a batch API: {error}"[:MAX_MESSAGE]) from error

    def _status_failure(self, error: Any) -> CallError:
        body = error.body if isinstance(error.body, dict) else {}
        code = str(body.get("code") or body.get("type") or "")
        message = str(body.get("message") or error.response.text)[:MAX_MESSAGE]
        message = message.replace(self._key, "***") if self._key != "none" else message
        return http_failure(error.status_code, code, message, error.response.headers)


@dataclass(frozen=True)
class PollIntervals:
    """Intervals in seconds."""

    gather: float = 1.0
    """A job is submitted once no request has been added for so long."""
    first: float = 1.0
    """Between the first two polls of a job; then increasing."""
    slowest: float = 60.0

    def after(self, pause: float) -> float:
        return min(self.slowest, pause * 1.5)


class JobRunner:
    """Raises `UserError` if the provider refuses, or has been down for longer than the endpoint's `outage`."""

    def __init__(self, endpoint: Endpoint, api: BatchApi, journal: JobJournal, intervals: PollIntervals) -> None:
        self._endpoint, self._api, self._journal, self._intervals = endpoint, api, journal, intervals
        self._any_answer = False
        self.statuses: dict[str, BatchStatus] = {}
        """Running jobs by name."""

    def summary(self) -> str:
        """`2 batch jobs: 1200 of 50000 requests done, 3 failed`."""
        statuses = tuple(self.statuses.values())
        done = sum(status.completed for status in statuses)
        failed = sum(status.failed for status in statuses)
        total = sum(status.total for status in statuses)
        jobs = "1 batch job" if len(statuses) == 1 else f"{len(statuses)} batch jobs"
        return f"{jobs}: {done} of {total} requests done, {failed} failed"

    async def submit(self, job: BatchJob, lines: Iterable[bytes]) -> BatchJob:
        """Upload the requests and create the batch."""
        path = self._journal.requests(job)
        with path.open("wb") as file:
            file.writelines(lines)
        file_id = await self._wait_out(lambda: self._api.upload(path))
        uploaded = self._journal.write(replace(job, file_id=file_id))
        is_retry = False

        async def create() -> BatchStatus:
            nonlocal is_retry
            found = await self._api.find(uploaded) if is_retry else None  # the first response may have been lost
            is_retry = True
            return found or await self._api.create(uploaded)

        status = await self._wait_out(create)
        log.info("batch job %s: %d requests sent to %s", status.batch_id, len(job.ids), self._endpoint.model)
        return self._journal.write(replace(uploaded, batch_id=status.batch_id))

    async def adopt(self, job: BatchJob) -> BatchJob | None:
        """Continue a job that another process began; None if that process died before it created the batch."""
        while job.batch_id is None:
            ours = self._journal.own(job)
            known = self._journal.read(job.name)
            if known is None:
                return None
            if ours and known.batch_id is None:
                found = await self._wait_out(lambda known=known: self._api.find(known))  # type: ignore[misc]
                if found is None:
                    self._journal.remove(known)
                    return None
                return self._journal.write(replace(known, batch_id=found.batch_id))
            await asyncio.sleep(self._intervals.first)  # its owner is about to create the batch
            job = known
        log.info("batch job %s: resumed", job.batch_id)
        return job

    async def wait(self, job: BatchJob) -> BatchStatus:
        """Poll until the batch has finished."""
        batch_id, pause, logged = str(job.batch_id), self._intervals.first, time.monotonic()
        while True:
            status = await self._wait_out(lambda: self._api.status(batch_id))
            before = self.statuses.get(job.name)
            self.statuses[job.name] = status
            if status.is_finished:
                return status
            if before and before != status and time.monotonic() - logged > LOG_SECONDS:
                logged = time.monotonic()
                log.info("%s", self.summary())
            await asyncio.sleep(pause)
            pause = self._intervals.after(pause)

    async def fetch(self, job: BatchJob, status: BatchStatus) -> BatchJob:
        """Download the results of a finished batch."""
        for file_id, path in zip((status.output, status.errors), self._journal.results(job), strict=True):
            if file_id is not None:
                await self._wait_out(lambda file_id=file_id, path=path: self._api.download(file_id, path))  # type: ignore[misc]
        done = self._journal.write(replace(job, status=status.status))
        self._journal.requests(job).unlink(missing_ok=True)
        log.info(
            "batch job %s: %s, %d of %d requests answered, %d failed",
            *(status.batch_id, status.status, status.completed, status.total, status.failed),
        )
        return done

    async def _wait_out(self, step: Callable[[], Awaitable[Value]]) -> Value:
        """Call the batch API, and again after transient failures. Raises `UserError`."""
        began, pause, attempts = time.monotonic(), self._intervals.first, 0
        while True:
            try:
                value = await step()
            except CallError as failure:
                attempts += 1
                unreachable = failure.kind == "unreachable" and not self._any_answer and attempts >= CONNECT_ATTEMPTS
                if failure.kind not in TRANSIENT_KINDS or unreachable:
                    raise self._refused_error(failure) from failure
                down = time.monotonic() - began
                if down > self._endpoint.outage:
                    raise StageFailed(
                        f"{self._endpoint.model}: the batch API at {self._api.url} has been down for {down:.0f} s",
                        got=failure,
                        next_step="run the same command later: it continues with the jobs that were submitted",
                    ) from failure
                self._any_answer |= failure.status is not None
                await asyncio.sleep(failure.retry_after or pause)
                pause = self._intervals.after(pause)
            else:
                self._any_answer = True
                return value

    def _refused_error(self, failure: CallError) -> UserError:
        if failure.status == 404 or failure.kind == "reply":
            return UserError(
                f"{self._endpoint.model} at {self._api.url}: no batch API there, or it lost a batch or a file",
                got=failure,
                next_step="teacher.batch=false; or, if a job is lost, remove its record and pay for it again: "
                f"{self._journal.folder}",
            )
        return final_error(failure, self._endpoint, self._api.url)
