"""What is known of batch jobs, on disk beside the replies: so that no crash makes anybody submit, and pay, twice.

A job is written down with all its requests before anything is sent, again when its file is uploaded, when the batch is
created and when its results have been fetched. The process that submits it holds a lock until the batch has an id.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from dsrl.core.errors import StageFailed, UserError
from dsrl.llm.reply_cache.cache import CallsStore
from dsrl.llm.reply_cache.locks import open_lock

VERSION = 1


@dataclass(frozen=True)
class Job:
    """One batch. Its requests are known by their ids; the bodies are not kept."""

    name: str
    """Ours; the provider has it as metadata."""
    url: str
    model: str
    ids: tuple[str, ...]
    file_id: str | None = None
    """The uploaded requests; None: not yet there."""
    batch_id: str | None = None
    """None: not yet created, as far as known."""
    status: str | None = None
    """The provider's, once the job is over and its results are here."""
    version: int = VERSION

    @cached_property
    def members(self) -> frozenset[str]:
        return frozenset(self.ids)


class Journal:
    """The jobs of a store. Safe in processes that share the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[tuple[int, int], Job]] = {}
        self._owned: dict[str, int] = {}

    def jobs(self) -> list[Job]:
        """All of them, the earliest first as far as their numbers tell."""
        found = {}
        for path in sorted(self.folder.glob("*.json")):
            if job := self.read(path.stem):
                found[path.stem] = job
        self._known = {name: known for name, known in self._known.items() if name in found}
        return list(found.values())

    def read(self, name: str) -> Job | None:
        """The job as it now stands; None if it was given up."""
        path = self._path(name)
        try:
            about = path.stat()
            changed = about.st_ino, about.st_mtime_ns
            if name not in self._known or self._known[name][0] != changed:
                self._known[name] = changed, _parsed(path)
            return self._known[name][1]
        except FileNotFoundError:
            return None

    def begin(self, url: str, model: str, ids: tuple[str, ...]) -> Job:
        """Writes down a new job, owned by this process. Only inside `submitting`."""
        number = max((int(path.stem.partition("-")[0]) for path in self.folder.glob("*.json")), default=0) + 1
        job = Job(f"{number:06}-{secrets.token_hex(6)}", url, model, ids)
        self.own(job)
        return self.write(job)

    def write(self, job: Job) -> Job:
        """Keeps a job as it now stands, on the disk when this returns."""
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
                f"batch job {job.name} could not be written down",
                got=error,
                next_step=f"make room for {self.folder} and start again; what was submitted is found again",
            ) from error
        return job

    def remove(self, job: Job) -> None:
        """Gives a job up: nothing was submitted, or all its replies are stored."""
        self._path(job.name).unlink(missing_ok=True)
        for path in self.folder.glob(f"{job.name}.*"):
            path.unlink(missing_ok=True)

    def own(self, job: Job) -> bool:
        """Whether this process may submit the job: nobody who still lives is about to."""
        if job.name not in self._owned:
            descriptor = open_lock(self.folder / f"{job.name}.lock")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._owned[job.name] = descriptor
        return True

    def disown(self, job: Job) -> None:
        """The job has its id; or it is left to others."""
        if job.name in self._owned:
            os.close(self._owned.pop(job.name))

    def close(self) -> None:
        while self._owned:
            os.close(self._owned.popitem()[1])

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """One process at a time decides what to submit."""
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = open_lock(self.folder / ".submit")
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(
                    f"batch jobs can't be written down and locked in {self.folder}",
                    got=error,
                    next_step="give a store=... on a disk with room, where you may write, whose file system has locks",
                ) from error
            yield

    def requests(self, job: Job) -> Path:
        """The file that is uploaded."""
        return self.folder / f"{job.name}.requests.jsonl"

    def results(self, job: Job) -> tuple[Path, Path]:
        """The fetched output and error files; either may be missing."""
        return self.folder / f"{job.name}.output.jsonl", self.folder / f"{job.name}.errors.jsonl"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _parsed(path: Path) -> Job:
    """Raises `UserError` for a file that is not a job's: going on without it could mean to pay twice."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["version"]
        job = Job(**{**values, "ids": tuple(values["ids"])}) if version == VERSION else None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not the record of a batch job",
            got=error,
            next_step="remove the file; if its batch was created, its replies are paid for again",
        ) from error
    if job is None:
        raise UserError(f"{path}: written by a newer dsrl", got=f"version {version}", next_step="update dsrl")
    return job


def custom_id(call: str, count: int) -> str:
    """Names a request in batch files: `<request digest>-<first index>-<count>`, at most 64 characters."""
    return f"{call.replace(':', '-')}-{count}"


def tidy(folder: Path, store: CallsStore, sure: bool) -> int:
    """Removes finished jobs whose replies are all in the store; gives the bytes that this frees."""
    journal = Journal(folder)
    freed = 0
    for job in journal.jobs():
        if job.status is not None and all(_stored(store, name) for name in _answered(journal, job)):
            freed += sum(path.stat().st_size for path in folder.glob(f"{job.name}.*"))
            if sure:
                journal.remove(job)
    return freed


def _answered(journal: Journal, job: Job) -> list[str]:
    from dsrl.llm.batch.files import answers

    return [name for name, _, _ in answers(journal.results(job)[0])]


def _stored(store: CallsStore, name: str) -> bool:
    digest, _, rest = name.partition("-")
    first = rest.partition("-")[0]
    return first.isdecimal() and store.get(digest, int(first)) is not None
