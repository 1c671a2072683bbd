"""Requests through the batch API of an endpoint: half the price, within a day, with the face of a `Wire`.

What is asked for within a moment becomes one job; its results are fetched once they are there. Every step is in the
journal (`batch_jobs`) before the next is taken, so that the same command, started again after whatever end, goes on
with the jobs that there are instead of submitting their requests again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dsrl.core.digest import digest
from dsrl.data.images import ImageStore
from dsrl.data.images.prompt import embed_images
from dsrl.llm.batch.api import BatchApi, Report
from dsrl.llm.batch.files import encode_request
from dsrl.llm.batch.journal import Job, Journal, custom_id
from dsrl.llm.batch.results import Results
from dsrl.llm.batch.steps import Steps, Waits
from dsrl.llm.completions import Completions
from dsrl.llm.endpoint import BATCH_WINDOW, Endpoint
from dsrl.llm.failures import CallError, user_error

MOST_BYTES = 190_000_000
"""Of one file of requests; OpenAI takes 200 MB."""
NAME_LENGTH = 32
LASTING = ("final", "prompt")
"""Failures of one request that asking again in another batch won't cure."""
TOO_MUCH = "token_limit_exceeded"
"""Code of a batch that was refused because too many tokens are waiting already."""
DELIVERED_AT_ONCE = 100

Created = Callable[[Job], Awaitable[Job | None]]
"""Brings a job to where its batch exists; None: it turned out that it never will."""

log = logging.getLogger(__name__)


@dataclass
class Asked:
    """A request somebody waits for."""

    body: Mapping[str, Any]
    future: "asyncio.Future[Completions]"
    job: str | None = None
    """Name of the job it waits for; None: not yet in any."""


class BatchWire:
    """Made inside an event loop. `send` returns when the request's job is done, mostly within hours.

    What a batch leaves open (it expired, a line is missing, the server stumbled) is asked for in another one, up to
    the endpoint's `max_retries`; so a `CallError` is the last word on its request.
    """

    batch: ClassVar[bool] = True

    def __init__(
        self,
        endpoint: Endpoint,
        url: str | None,
        folder: Path,
        images: ImageStore | None = None,
        waits: Waits | None = None,
    ) -> None:
        """`folder` holds the journal, beside the calls store; `images` the pictures that requests refer to."""
        self._endpoint = endpoint
        self._api = BatchApi(endpoint, url)
        self._journal = Journal(folder)
        self._results = Results(self._journal)
        self._waits = waits or Waits()
        self._images = images
        self._steps = Steps(endpoint, self._api, self._journal, self._waits)
        self._asked: dict[str, Asked] = {}
        self._tries: Counter[str] = Counter()
        self._most = BATCH_WINDOW
        self._news = asyncio.Event()
        self._following: dict[str, asyncio.Task[None]] = {}
        self._gathering: asyncio.Task[None] | None = None
        self.url = self._api.url

    async def send(self, body: dict[str, Any], call: str = "") -> Completions:
        """The completions of one request. `call` names its first completion, `<request digest>:<index>`: equal bodies
        of different completions stay apart by it."""
        name = custom_id(call or digest(body, NAME_LENGTH), body.get("n", 1))
        if name not in self._asked:
            self._asked[name] = Asked(body, _heard(asyncio.get_running_loop().create_future()))
            self._news.set()
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())
        return await asyncio.shield(self._asked[name].future)

    async def close(self) -> None:
        """Stops waiting. The jobs go on at the provider, and the same command with them."""
        tasks = [*self._following.values(), *([self._gathering] if self._gathering else [])]
        under_way = {
            name: job.batch_id for name in self._following if (job := self._journal.read(name)) and job.batch_id
        }
        num_requests = sum(asked.job in under_way for asked in self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._journal.close()
        if under_way:
            log.info(
                "batch jobs %s go on: %d requests, billed later; the same command will fetch their results",
                *(" ".join(under_way.values()), num_requests),
            )
        for asked in self._asked.values():
            asked.future.cancel()
        await self._api.close()

    def status(self) -> str:
        """`2 batch jobs: 1200 of 50000 requests done, 3 failed`; from any thread."""
        waiting = len(self._asked)
        return self._steps.status() if self._steps.reports else f"{waiting} requests for the next batch job"

    async def _gather(self) -> None:
        """Puts what is asked for into jobs, for ever."""
        while True:
            await self._news.wait()
            while self._news.is_set() and len(self._fresh()) < self._most:
                self._news.clear()
                await asyncio.sleep(self._waits.gather)
            self._news.clear()
            names = self._fresh()
            try:
                self._place(names)
            except Exception as error:  # noqa: BLE001  nobody waits for this task: those who asked are told
                self._fail(names, error)

    def _fresh(self) -> list[str]:
        return [name for name, asked in self._asked.items() if asked.job is None]

    def _place(self, names: list[str]) -> None:
        """Takes results that are here, joins jobs that are under way, begins new ones for the rest."""
        with self._journal.submitting():
            for job in self._journal.jobs():
                if job.url == self.url:
                    self._join(job, [name for name in names if name in job.members])
            rest = [name for name in names if name in self._asked and self._asked[name].job is None]
            begun = [self._begin(part) for part in self._parts(rest)]
        for job, part in begun:
            self._follow(job, part, lambda job: self._steps.submit(job, self._lines(job.ids)))

    def _join(self, job: Job, names: list[str]) -> None:
        waiting = [name for name in names if name in self._asked and self._asked[name].job is None]
        if job.status is not None:
            for name in waiting:
                answer = self._results.find(job, name)
                if isinstance(answer, Completions):
                    self._asked.pop(name).future.set_result(answer)
        elif waiting:
            self._follow(job, waiting, self._steps.adopt)

    def _parts(self, names: list[str]) -> Iterable[list[str]]:
        """Requests of one file each."""
        part: list[str] = []
        size = 0
        for name in names:
            length = len(self._line(name))
            if part and (len(part) >= self._most or size + length > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append(name)
            size += length
        if part:
            yield part

    def _begin(self, names: list[str]) -> tuple[Job, list[str]]:
        return self._journal.begin(self.url, self._endpoint.model, tuple(names)), names

    def _line(self, name: str) -> bytes:
        return encode_request(name, embed_images(dict(self._asked[name].body), self._images))

    def _lines(self, names: Iterable[str]) -> Iterator[bytes]:
        return (self._line(name) for name in names)

    def _follow(self, job: Job, names: list[str], created: Created) -> None:
        for name in names:
            self._asked[name].job = job.name
        if job.name not in self._following:
            self._following[job.name] = asyncio.create_task(self._see_through(job, created))

    async def _see_through(self, job: Job, created: Created) -> None:
        """A job from wherever it stands to its results."""
        try:
            if known := await created(job):
                self._journal.disown(job)
                await self._finish(known)
            self._again(self._waiting_for(job))
        except Exception as error:  # noqa: BLE001  nobody waits for this task: those who asked are told
            self._fail(self._waiting_for(job), error)
        finally:
            self._journal.disown(job)
            self._following.pop(job.name, None)
            self._steps.reports.pop(job.name, None)

    def _waiting_for(self, job: Job) -> list[str]:
        return [name for name, asked in self._asked.items() if asked.job == job.name]

    async def _finish(self, job: Job) -> None:
        """Waits until the batch is over, fetches its results and hands them out."""
        report = await self._steps.over(job)
        if report.status == "failed" and not report.output:
            self._journal.remove(job)
            await self._refused(job, report)
            return
        done = await self._steps.fetch(job, report)
        await self._deliver(done)

    async def _refused(self, job: Job, report: Report) -> None:
        """A batch that was not begun. Too much for the provider's queue: smaller ones, later."""
        if report.code != TOO_MUCH or (len(job.ids) == 1 and len(self._following) == 1):
            problem = CallError("final", f"{report.batch_id} failed: {report.code}: {report.problem}")
            raise user_error(problem, self._endpoint, self.url)
        self._most = max(1, len(job.ids) // 2)
        log.warning(
            "%s has too much in its queue (%s); batches of %d from now on",
            *(self._endpoint.model, report.problem, self._most),
        )
        for name in self._waiting_for(job):
            self._tries[name] -= 1
        await asyncio.sleep(self._waits.slowest)

    async def _deliver(self, job: Job) -> None:
        for number, name in enumerate(self._waiting_for(job)):
            if number % DELIVERED_AT_ONCE == 0:
                await asyncio.sleep(0)  # so that what was handed out is stored and forgotten
            answer = self._results.find(job, name)
            if isinstance(answer, Completions):
                self._asked.pop(name).future.set_result(answer)
            elif answer is not None and (answer.kind in LASTING or self._tries[name] >= self._endpoint.max_retries):
                self._fail([name], answer)

    def _again(self, names: list[str]) -> None:
        """Into another batch, unless that was tried often enough."""
        for name in names:
            self._tries[name] += 1
            if self._tries[name] > self._endpoint.max_retries:
                self._fail([name], CallError("server", f"no answer in {self._tries[name]} batches"))
            else:
                self._asked[name].job = None
                self._news.set()

    def _fail(self, names: list[str], error: Exception) -> None:
        for name in names:
            if name in self._asked:
                self._asked.pop(name).future.set_exception(error)


def _heard(future: "asyncio.Future[Completions]") -> "asyncio.Future[Completions]":
    """An error that nobody waits for any more is not reported as forgotten."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
