"""Batch jobs on disk, beside the reply cache, so that no crash submits, and pays for, a job twice.

A job is recorded with all its requests before anything is sent, and again when its file is uploaded, when the batch is
created and when its results are downloaded. The process that submits it holds a lock until the batch has an id.
"""

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.llm.completions import MAX_MESSAGE, Completions, read_completions
from dsrl.llm.failures import CallError, http_failure
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.reply_cache.request_locks import open_lock

VERSION = 1
REQUEST_URL = "/v1/chat/completions"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchJob:
    """One batch. Of its requests only the ids are kept."""

    name: str
    """Our name, also stored in the provider's metadata."""
    url: str
    model: str
    ids: tuple[str, ...]
    file_id: str | None = None
    """The uploaded requests; None: not uploaded yet."""
    batch_id: str | None = None
    """None: not created yet, as far as is known."""
    status: str | None = None
    """The provider's status, once the batch has finished and its results are downloaded."""
    version: int = VERSION

    @cached_property
    def members(self) -> frozenset[str]:
        return frozenset(self.ids)


class JobJournal:
    """The jobs of one reply cache. Safe in processes that share the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, int], BatchJob]] = {}
        self._owned: dict[str, int] = {}

    def jobs(self) -> list[BatchJob]:
        """All jobs, by number."""
        jobs = {}
        for path in sorted(self.folder.glob("*.json")):
            if job := self.read(path.stem):
                jobs[path.stem] = job
        self._known = {name: known for name, known in self._known.items() if name in jobs}
        return list(jobs.values())

    def read(self, name: str) -> BatchJob | None:
        """The job as now recorded; None if it was removed."""
        path = self._path(name)
        try:
            stat = path.stat()
            version = stat.st_ino, stat.st_mtime_ns
            if name not in self._known or self._known[name][0] != version:
                self._known[name] = version, _read_job(path)
            return self._known[name][1]
        except FileNotFoundError:
            return None

    def begin(self, url: str, model: str, ids: tuple[str, ...]) -> BatchJob:
        """Record a new job, owned by this process. Call it inside `submitting`."""
        number = max((int(path.stem.partition("-")[0]) for path in self.folder.glob("*.json")), default=0) + 1
        job = BatchJob(f"{number:06}-{secrets.token_hex(6)}", url, model, ids)
        self.own(job)
        return self.write(job)

    def write(self, job: BatchJob) -> BatchJob:
        """Record the job's state; it is on the disk when this returns."""
        draft = self.folder / f".{job.name}-{secrets.token_hex(4)}"
        try:
            with draft.open("w", encoding="utf-8") as file:
                json.dump(asdict(job), file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path(job.name))
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise StageFailed(
                f"batch job {job.name} could not be recorded",
                got=error,
                next_step=f"free space for {self.folder} and start again; what was submitted is found again",
            ) from error
        return job

    def remove(self, job: BatchJob) -> None:
        """Delete a job's files: nothing was submitted, or all its replies are cached."""
        self._path(job.name).unlink(missing_ok=True)
        for path in self.folder.glob(f"{job.name}.*"):
            path.unlink(missing_ok=True)

    def own(self, job: BatchJob) -> bool:
        """Lock the job for submission. False if a living process holds the lock."""
        if job.name not in self._owned:
            descriptor = open_lock(self.folder / f"{job.name}.lock")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._owned[job.name] = descriptor
        return True

    def disown(self, job: BatchJob) -> None:
        if job.name in self._owned:
            os.close(self._owned.pop(job.name))

    def close(self) -> None:
        while self._owned:
            os.close(self._owned.popitem()[1])

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Only one process at a time decides what to submit."""
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = open_lock(self.folder / ".submit")
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(
                    f"batch jobs can't be recorded and locked in {self.folder}",
                    got=error,
                    next_step="give a store=... on a writable disk with free space, whose file system has locks",
                ) from error
            yield

    def requests(self, job: BatchJob) -> Path:
        """The file that is uploaded."""
        return self.folder / f"{job.name}.requests.jsonl"

    def results(self, job: BatchJob) -> tuple[Path, Path]:
        """The downloaded files of replies and of errors; either may be missing."""
        return self.folder / f"{job.name}.output.jsonl", self.folder / f"{job.name}.errors.jsonl"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _read_job(path: Path) -> BatchJob:
    """Raises `UserError` for an unreadable file: to ignore it could mean to pay twice."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["version"]
        job = BatchJob(**{**values, "ids": tuple(values["ids"])}) if version == VERSION else None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not the record of a batch job",
            got=error,
            next_step="remove the file; if its batch was created, its replies are paid for again",
        ) from error
    if job is None:
        raise UserError(f"{path}: written by a newer dsrl", got=f"version {version}", next_step="update dsrl")
    return job


class JobResults:
    """Downloaded results by job and custom id. Only their positions are kept in memory."""

    def __init__(self, journal: JobJournal) -> None:
        self._journal = journal
        self._positions: dict[str, dict[str, tuple[Path, int, int]]] = {}

    def find(self, job: BatchJob, name: str) -> Completions | CallError | None:
        """The result of one request; None if the job has none. A reply takes precedence over an error."""
        if job.name not in self._positions:
            output, errors = self._journal.results(job)
            self._positions[job.name] = {
                name: (path, offset, length)
                for path in (errors, output)
                for name, offset, length in result_positions(path)
            }
        position = self._positions[job.name].get(name)
        if position is None:
            return None
        path, offset, length = position
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return read_result(os.pread(descriptor, length, offset))
        finally:
            os.close(descriptor)


def custom_id(call: str, count: int) -> str:
    """Name of a request in batch files: `<request digest>-<first index>-<count>`, at most 64 characters."""
    return f"{call.replace(':', '-')}-{count}"


def encode_request(name: str, body: Mapping[str, Any]) -> bytes:
    """One line of the file that is uploaded."""
    line = {"custom_id": name, "method": "POST", "url": REQUEST_URL, "body": body}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def result_positions(path: Path) -> Iterator[tuple[str, int, int]]:
    """(custom id, offset, length) of the lines of a result file; the first of several lines with one id counts.

    Damaged lines are skipped and their number is logged. A missing file is empty.
    """
    if not path.exists():
        return
    seen: set[str] = set()
    offset = damaged = 0
    with path.open("rb") as file:
        for line in file:
            try:
                name = _mapping(json.loads(line)).get("custom_id")
            except (ValueError, RecursionError):
                name = None
            if not isinstance(name, str):
                damaged += 1
            elif name not in seen:
                seen.add(name)
                yield name, offset, len(line)
            offset += len(line)
    if damaged:
        log.warning("%s: %d lines can't be read; their requests count as unanswered", path, damaged)


def read_result(line: bytes) -> Completions | CallError:
    """The result in one line, with errors as if they had come over HTTP."""
    value = json.loads(line)
    response, error = _mapping(value.get("response")), _mapping(value.get("error"))
    body, status = response.get("body"), response.get("status_code")
    if error and not response:
        code, message = _code(error), str(error.get("message", error))[:MAX_MESSAGE]
        status = error.get("status_code")
        if isinstance(status, int):
            return http_failure(status, code, message, {})
        return CallError("server", f"{code}: {message}")
    if isinstance(status, int) and status >= 400:
        detail = _mapping(body).get("error", body)
        message = str(_mapping(detail).get("message", detail))[:MAX_MESSAGE]
        return http_failure(status, _code(_mapping(detail)), message, {})
    try:
        return read_completions(json.dumps(body).encode())
    except CallError as failure:
        return failure


def _code(error: Mapping[str, Any]) -> str:
    return str(error.get("code") or error.get("type") or "")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def remove_finished_jobs(folder: Path, cache: ReplyCache, sure: bool) -> int:
    """Remove finished jobs whose replies are all cached; with `sure=False`, only count. Returns the bytes freed."""

    def is_cached(name: str) -> bool:
        digest, _, rest = name.partition("-")
        first = rest.partition("-")[0]
        return first.isdecimal() and cache.get(digest, int(first)) is not None

    journal = JobJournal(folder)
    freed = 0
    for job in journal.jobs():
        replies = result_positions(journal.results(job)[0])
        if job.status is not None and all(is_cached(name) for name, _, _ in replies):
            freed += sum(path.stat().st_size for path in folder.glob(f"{job.name}.*"))
            if sure:
                journal.remove(job)
    return freed
