"""Where results rest: one folder per stage key, shared by runs, sweeps and teammates.

`<root>/stages/<stage>/<key>/` holds a stage's tables and, written last, `manifest.json`; a folder without a manifest is
not an entry. Folders are made beside their place and renamed into it, so a reader sees a whole entry or none.
"""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsrl.core.digest import file_digest, sampled_digest
from dsrl.core.errors import UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock

MANIFEST = "manifest.json"
FORMAT = 2
"""Raised when entries of before can't be read any more; 2: keys of component names."""
LOCK_SAID_AFTER = 5.0
"""Seconds after which a wait for another process is said."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What an entry holds and what it was made from."""

    stage: str
    key: str
    parts: dict[str, Any]
    """The stage's own identity and prompts, as they went into the key."""
    parents: dict[str, str]
    """What it needed -> the key that made it."""
    figures: dict[str, Any]
    rows: dict[str, Any]
    calls: dict[str, Any]
    seconds: float
    created: float
    """Unix time."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Relative path -> size and digest."""
    contents: dict[str, str] = field(default_factory=dict)
    """What it wrote -> the digest of that, where later stages go by it instead of by the key."""
    format: int = FORMAT


@dataclass(frozen=True)
class Entry:
    """A stored result."""

    folder: Path
    manifest: Manifest


class Store:
    """The content-addressed store of stage results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.corrupt: list[str] = []
        """Entries that were found damaged and set aside, in words."""

    def open(self) -> None:
        """Make the root folder. Raises `UserError` where nothing can be written."""
        try:
            (self.root / "stages").mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"store: can't write to {self.root}", got=error.strerror, next_step="give store=FOLDER"
            ) from error

    def place(self, stage: str, key: str) -> Path:
        return self.root / "stages" / stage / key

    def find(self, stage: str, key: str) -> Entry | None:
        """The checked entry, or None where there is none or a damaged one."""
        found = checked(self.place(stage, key))
        return found if isinstance(found, Entry) else None

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[bool]:
        """Held by the one process that makes this entry; others wait for it. Yields whether it had to wait."""
        from filelock import FileLock, Timeout

        folder = self.place(stage, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{key}.lock"))
        waited = False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waited = True
            _wait_for(lock, stage, self.root)
        try:
            yield waited
        finally:
            lock.release()

    def scratch(self, stage: str, key: str) -> Path:
        """An empty folder that `commit` turns into the entry."""
        folder = self.place(stage, key).with_name(f".making-{key}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def work(self, stage: str, key: str) -> Path:
        """A folder that outlives a killed process: checkpoints of a training wait here for the next try."""
        folder = self.root / "work" / stage / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, scratch: Path, manifest: Manifest) -> Entry:
        """List the files, write the manifest last and move the folder into its place."""
        paths = sorted(path for path in scratch.rglob("*") if path.is_file())
        manifest.files.update(
            {
                str(path.relative_to(scratch)): {"size": path.stat().st_size, "digest": file_digest(path)}
                for path in paths
            }
        )
        write_json(scratch / MANIFEST, asdict(manifest))
        target = self.place(manifest.stage, manifest.key)
        shutil.rmtree(target, ignore_errors=True)  # the remains of an entry without a manifest
        scratch.rename(target)
        shutil.rmtree(self.root / "work" / manifest.stage / manifest.key, ignore_errors=True)
        return Entry(target, manifest)

    def entries(self, stage: str | None = None) -> list[Entry]:
        """All entries that can be read, oldest first, their files unchecked."""
        pattern = f"{stage or '*'}/*/{MANIFEST}"
        folders = (path.parent for path in (self.root / "stages").glob(pattern) if not path.parent.name.startswith("."))
        readable = (entry for folder in folders if (entry := _readable(folder)))
        return sorted(readable, key=lambda entry: entry.manifest.created)

    def get_or_create(self, stage: str, key: str, make: Callable[[Path], Manifest]) -> tuple[Entry, bool]:
        """The entry, and whether it was there already; `make(scratch)` fills it in otherwise, in one process only."""
        if entry := self.find(stage, key):
            os.utime(entry.folder / MANIFEST)  # `dsrl gc` keeps what was used lately
            return entry, True
        with self.lock(stage, key):
            if entry := self.find(stage, key):
                return entry, True
            self._set_aside(stage, key)
            scratch = self.scratch(stage, key)
            return self.commit(scratch, make(scratch)), False

    def _set_aside(self, stage: str, key: str) -> None:
        """Move a damaged entry out of the way. Only for the holder of the lock: others may be making it again."""
        folder = self.place(stage, key)
        fault = checked(folder)
        if isinstance(fault, str):
            aside = folder.with_name(f".damaged-{key}-{uuid.uuid4().hex[:8]}")
            folder.rename(aside)
            self.corrupt.append(f"store entry {stage}/{key} is damaged: {fault}; set aside as {aside.name}, made again")


def _wait_for(lock: "BaseFileLock", stage: str, root: Path) -> None:
    """Waits for the process that makes the entry; said after a while."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=LOCK_SAID_AFTER)
    except Timeout:
        log.warning("another process that shares %s is making %s: waiting for it; end it to go on here", root, stage)
        lock.acquire()


def checked(folder: Path) -> Entry | str | None:
    """The entry; or in words what is wrong with it; None where there is none."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        entry = read_entry(folder)
        return damage(entry) or entry
    except ValueError as error:
        return f"{MANIFEST} can't be read ({error})"


def _readable(folder: Path) -> Entry | None:
    try:
        return read_entry(folder)
    except (ValueError, OSError):  # damaged, or removed by another process this moment; the next run says so
        return None


def read_entry(folder: Path) -> Entry:
    """Raises ValueError for a manifest that is not one."""
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"this version reads format {FORMAT}")
    known = {place.name for place in fields(Manifest)}
    if known != set(values) or not isinstance(values["files"], dict):
        raise ValueError("its fields are not those of a manifest")
    return Entry(folder, Manifest(**values))


def damage(entry: Entry) -> str | None:
    """What is wrong with an entry's files, or None."""
    for name, expected in entry.manifest.files.items():
        path = entry.folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
        if expected["digest"] not in (file_digest(path), sampled_digest(path)):
            return f"the content of {name} has changed"
    return None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
