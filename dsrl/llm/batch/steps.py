"""The way of one batch job: uploaded, created, waited for, fetched; written down after each step."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from dsrl.core.errors import StageFailed, UserError
from dsrl.llm.batch.api import BatchApi, Report
from dsrl.llm.batch.journal import Job, Journal
from dsrl.llm.endpoint import Endpoint
from dsrl.llm.failures import CallError, user_error

PASSING = ("throttled", "server", "timeout", "connection", "unreachable")
"""Failures of the batch API itself that are waited out."""
TRIES_TO_CONNECT = 3
NEWS_SECONDS = 60.0

Value = TypeVar("Value")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waits:
    """Seconds."""

    gather: float = 1.0
    """A job is submitted once nothing new was asked for so long."""
    first: float = 1.0
    """Between the first two looks at a job; then longer and longer."""
    slowest: float = 60.0

    def after(self, pause: float) -> float:
        return min(self.slowest, pause * 1.5)


class Steps:
    """Raises `UserError` where the provider refuses, or is down for longer than the endpoint's `outage`."""

    def __init__(self, endpoint: Endpoint, api: BatchApi, journal: Journal, waits: Waits) -> None:
        self._endpoint, self._api, self._journal, self._waits = endpoint, api, journal, waits
        self._answered = False
        self.reports: dict[str, Report] = {}
        """The jobs that are under way."""

    def status(self) -> str:
        """`2 batch jobs: 1200 of 50000 requests done, 3 failed`."""
        reports = tuple(self.reports.values())
        done, failed, total = (
            sum(getattr(one, count) for one in reports) for count in ("completed", "failed", "total")
        )
        jobs = "1 batch job" if len(reports) == 1 else f"{len(reports)} batch jobs"
        return f"{jobs}: {done} of {total} requests done, {failed} failed"

    async def submit(self, job: Job, lines: Iterable[bytes]) -> Job:
        """Uploads the requests and creates the batch."""
        path = self._journal.requests(job)
        with path.open("wb") as file:
            file.writelines(lines)
        file_id = await self._patiently(lambda: self._api.upload(path))
        uploaded = self._journal.write(replace(job, file_id=file_id))
        tried = False

        async def create() -> Report:
            nonlocal tried
            found = await self._api.find(uploaded) if tried else None  # the answer to the first try may have got lost
            tried = True
            return found or await self._api.create(uploaded)

        report = await self._patiently(create)
        log.info("batch job %s: %d requests sent to %s", report.batch_id, len(job.ids), self._endpoint.model)
        return self._journal.write(replace(uploaded, batch_id=report.batch_id))

    async def adopt(self, job: Job) -> Job | None:
        """A job that another process has begun. None: that process died before it created the batch."""
        while job.batch_id is None:
            ours = self._journal.own(job)
            known = self._journal.read(job.name)
            if known is None:
                return None
            if ours and known.batch_id is None:
                return await self._recovered(known)
            await asyncio.sleep(self._waits.first)  # its owner is about to create the batch
            job = known
        log.info("batch job %s: taken up again", job.batch_id)
        return job

    async def _recovered(self, job: Job) -> Job | None:
        found = await self._patiently(lambda: self._api.find(job))
        if found is None:
            self._journal.remove(job)
            return None
        return self._journal.write(replace(job, batch_id=found.batch_id))

    async def over(self, job: Job) -> Report:
        """How the batch ended, once it has."""
        batch_id, pause, said = str(job.batch_id), self._waits.first, time.monotonic()
        while True:
            report = await self._patiently(lambda: self._api.look(batch_id))
            before = self.reports.get(job.name)
            self.reports[job.name] = report
            if report.over:
                return report
            if before and before != report and time.monotonic() - said > NEWS_SECONDS:
                said = time.monotonic()
                log.info("%s", self.status())
            await asyncio.sleep(pause)
            pause = self._waits.after(pause)

    async def fetch(self, job: Job, report: Report) -> Job:
        """Brings the results of a batch that is over."""
        for file_id, path in zip((report.output, report.errors), self._journal.results(job), strict=True):
            if file_id is not None:
                await self._patiently(lambda file_id=file_id, path=path: self._api.download(file_id, path))  # type: ignore[misc]
        done = self._journal.write(replace(job, status=report.status))
        self._journal.requests(job).unlink(missing_ok=True)
        log.info(
            "batch job %s: %s, %d of %d requests answered, %d failed",
            *(report.batch_id, report.status, report.completed, report.total, report.failed),
        )
        return done

    async def _patiently(self, step: Callable[[], Awaitable[Value]]) -> Value:
        """A call of the batch API, repeated while what hinders it may pass. Raises `UserError`."""
        began, pause, tries = time.monotonic(), self._waits.first, 0
        while True:
            try:
                value = await step()
            except CallError as failure:
                tries += 1
                given_up = failure.kind == "unreachable" and not self._answered and tries >= TRIES_TO_CONNECT
                if failure.kind not in PASSING or given_up:
                    raise self._hopeless(failure) from failure
                if time.monotonic() - began > self._endpoint.outage:
                    raise self._down(failure, time.monotonic() - began) from failure
                self._answered |= failure.status is not None
                await asyncio.sleep(failure.retry_after or pause)
                pause = self._waits.after(pause)
            else:
                self._answered = True
                return value

    def _hopeless(self, failure: CallError) -> UserError:
        if failure.status == 404 or failure.kind == "reply":
            return UserError(
                f"{self._endpoint.model} at {self._api.url}: no batch API there, or it forgot a batch or a file",
                got=failure,
                next_step="teacher.batch=false; or, if a job is lost, remove its record and pay for it again: "
                f"{self._journal.folder}",
            )
        return user_error(failure, self._endpoint, self._api.url)

    def _down(self, failure: CallError, seconds: float) -> StageFailed:
        return StageFailed(
            f"{self._endpoint.model}: the batch API at {self._api.url} is down since {seconds:.0f} s",
            got=failure,
            next_step="run the same command later: it goes on with the jobs that were submitted",
        )
