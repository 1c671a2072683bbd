"""Chat completions through the batch API: half the price, within a day, with the interface of `HttpTransport`.

Requests that arrive within a moment become one job; its results are downloaded once it has finished. Each step is
recorded in the journal before the next is taken, so the same command, however it was stopped, continues with the
existing jobs instead of submitting their requests again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dsrl.core.digest import digest
from dsrl.data.images import ImageStore
from dsrl.data.images.prompt import embed_images
from dsrl.llm.batch.api import BatchApi, BatchStatus, JobRunner, PollIntervals
from dsrl.llm.batch.journal import BatchJob, JobJournal, JobResults, custom_id, encode_request
from dsrl.llm.completions import Completions
from dsrl.llm.endpoint import MAX_BATCH_REQUESTS, Endpoint
from dsrl.llm.failures import CallError, final_error

MAX_FILE_BYTES = 190_000_000
"""Of one file of requests; OpenAI accepts 200 MB."""
NAME_LENGTH = 32
LASTING_KINDS = ("final", "prompt", "refused")
"""Failures of one request that another batch will not cure."""
QUEUE_FULL = "token_limit_exceeded"
"""Error code of a batch that was refused because too many tokens are enqueued already."""
DELIVERED_AT_ONCE = 100

CreateJob = Callable[[BatchJob], Awaitable[BatchJob | None]]
"""Takes a job to where its batch exists; None: it turned out that it never will."""

log = logging.getLogger(__name__)


@dataclass
class PendingRequest:
    """A request for whose completions a caller waits."""

    body: dict[str, Any]
    future: "asyncio.Future[Completions]"
    job: str | None = None
    """Name of the job that contains it; None: not in a job yet."""


class BatchTransport:
    """Create it inside an event loop. `send` returns when the request's job is done, mostly within hours.

    What a batch leaves open (it expired, a line is missing, the server failed) goes into another one, up to the
    endpoint's `max_retries`, so a `CallError` is the final result of its request.
    """

    batch: ClassVar[bool] = True

    def __init__(
        self,
        endpoint: Endpoint,
        url: str | None,
        folder: Path,
        images: ImageStore | None = None,
        intervals: PollIntervals | None = None,
    ) -> None:
        """`folder` holds the journal, beside the reply cache; `images` the images that requests refer to."""
        self._endpoint = endpoint
        self._api = BatchApi(endpoint, url)
        self._journal = JobJournal(folder)
        self._results = JobResults(self._journal)
        self._intervals = intervals or PollIntervals()
        self._images = images
        self._runner = JobRunner(endpoint, self._api, self._journal, self._intervals)
        self._pending: dict[str, PendingRequest] = {}
        self._attempts: Counter[str] = Counter()
        self._max_requests = MAX_BATCH_REQUESTS
        self._added = asyncio.Event()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._gathering: asyncio.Task[None] | None = None
        self.url = self._api.url

    async def send(self, body: dict[str, Any], call: str = "") -> Completions:
        """The completions of one request. `call`, the id of its first completion, keeps equal bodies apart."""
        name = custom_id(call or digest(body, NAME_LENGTH), body.get("n", 1))
        if name not in self._pending:
            future: asyncio.Future[Completions] = asyncio.get_running_loop().create_future()
            # an error without a waiter must not be logged as unretrieved
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._pending[name] = PendingRequest(body, future)
            self._added.set()
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())
        return await asyncio.shield(self._pending[name].future)

    async def close(self) -> None:
        """Stop waiting. The jobs continue at the provider, and the same command continues with them."""
        tasks = [*self._jobs.values(), *([self._gathering] if self._gathering else [])]
        running = {name: job.batch_id for name in self._jobs if (job := self._journal.read(name)) and job.batch_id}
        num_requests = sum(pending.job in running for pending in self._pending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._journal.close()
        if running:
            log.info(
                "batch jobs %s continue: %d requests, billed later; the same command will fetch their results",
                *(" ".join(running.values()), num_requests),
            )
        for pending in self._pending.values():
            pending.future.cancel()
        await self._api.close()

    def status(self) -> str:
        """`2 batch jobs: 1200 of 50000 requests done, 3 failed`; from any thread."""
        return self._runner.summary() if self._runner.statuses else f"{len(self._pending)} requests for the next batch"

    async def _gather(self) -> None:
        """Put new requests into jobs, forever."""
        while True:
            await self._added.wait()
            while self._added.is_set() and len(self._not_in_job()) < self._max_requests:
                self._added.clear()
                await asyncio.sleep(self._intervals.gather)
            self._added.clear()
            names = self._not_in_job()
            try:
                self._place(names)
            except Exception as error:  # noqa: BLE001  nothing awaits this task: the error goes to the waiters
                self._fail(names, error)

    def _not_in_job(self) -> list[str]:
        return [name for name, pending in self._pending.items() if pending.job is None]

    def _place(self, names: list[str]) -> None:
        """Use results that are there, join running jobs, begin new ones for the rest."""
        with self._journal.submitting():
            for job in self._journal.jobs():
                if job.url == self.url:
                    self._join(job, [name for name in names if name in job.members])
            rest = [name for name in names if name in self._pending and self._pending[name].job is None]
            begun = [
                (self._journal.begin(self.url, self._endpoint.model, tuple(part)), part) for part in self._parts(rest)
            ]
        for job, part in begun:
            self._follow(job, part, lambda job: self._runner.submit(job, map(self._line, job.ids)))

    def _join(self, job: BatchJob, names: list[str]) -> None:
        waiting = [name for name in names if name in self._pending and self._pending[name].job is None]
        if job.status is not None:
            for name in waiting:
                result = self._results.find(job, name)
                if isinstance(result, Completions):
                    self._pending.pop(name).future.set_result(result)
        elif waiting:
            self._follow(job, waiting, self._runner.adopt)

    def _parts(self, names: list[str]) -> Iterable[list[str]]:
        """Split requests into files within the provider's limits."""
        part: list[str] = []
        size = 0
        for name in names:
            length = len(self._line(name))
            if part and (len(part) >= self._max_requests or size + length > MAX_FILE_BYTES):
                yield part
                part, size = [], 0
            part.append(name)
            size += length
        if part:
            yield part

    def _line(self, name: str) -> bytes:
        return encode_request(name, embed_images(dict(self._pending[name].body), self._images))

    def _follow(self, job: BatchJob, names: list[str], create: CreateJob) -> None:
        for name in names:
            self._pending[name].job = job.name
        if job.name not in self._jobs:
            self._jobs[job.name] = asyncio.create_task(self._run_job(job, create))

    async def _run_job(self, job: BatchJob, create: CreateJob) -> None:
        """Take a job from its present state to its results."""
        try:
            if created := await create(job):
                self._journal.disown(job)
                await self._finish(created)
            self._requeue(self._waiting_for(job))
        except Exception as error:  # noqa: BLE001  nothing awaits this task: the error goes to the waiters
            self._fail(self._waiting_for(job), error)
        finally:
            self._journal.disown(job)
            self._jobs.pop(job.name, None)
            self._runner.statuses.pop(job.name, None)

    def _waiting_for(self, job: BatchJob) -> list[str]:
        return [name for name, pending in self._pending.items() if pending.job == job.name]

    async def _finish(self, job: BatchJob) -> None:
        """Wait for the batch, download its results and deliver them."""
        status = await self._runner.wait(job)
        if status.status == "failed" and not status.output:
            self._journal.remove(job)
            await self._handle_refusal(job, status)
            return
        done = await self._runner.fetch(job, status)
        for number, name in enumerate(self._waiting_for(done)):
            if number % DELIVERED_AT_ONCE == 0:
                await asyncio.sleep(0)  # lets the waiters store what was delivered
            result = self._results.find(done, name)
            if isinstance(result, Completions):
                self._pending.pop(name).future.set_result(result)
                continue
            attempts_left = self._attempts[name] < self._endpoint.max_retries
            if result is not None and (result.kind in LASTING_KINDS or not attempts_left):
                self._fail([name], result)

    async def _handle_refusal(self, job: BatchJob, status: BatchStatus) -> None:
        """The batch was not started. If the provider's queue was full: smaller batches, later."""
        if status.code != QUEUE_FULL or (len(job.ids) == 1 and len(self._jobs) == 1):
            problem = CallError("final", f"{status.batch_id} failed: {status.code}: {status.problem}")
            raise final_error(problem, self._endpoint, self.url)
        self._max_requests = max(1, len(job.ids) // 2)
        log.warning(
            "the queue of %s is full (%s); batches of %d requests from now on",
            *(self._endpoint.model, status.problem, self._max_requests),
        )
        for name in self._waiting_for(job):
            self._attempts[name] -= 1
        await asyncio.sleep(self._intervals.slowest)

    def _requeue(self, names: list[str]) -> None:
        """Put unanswered requests into another batch, unless they have used up their retries."""
        for name in names:
            self._attempts[name] += 1
            if self._attempts[name] > self._endpoint.max_retries:
                self._fail([name], CallError("server", f"no answer in {self._attempts[name]} batches"))
            else:
                self._pending[name].job = None
                self._added.set()

    def _fail(self, names: list[str], error: Exception) -> None:
        for name in names:
            if name in self._pending:
                self._pending.pop(name).future.set_exception(error)
