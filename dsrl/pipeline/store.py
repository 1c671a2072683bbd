"""The content-addressed store of stage results: one folder per stage key, shared by runs, sweeps and teammates.

`<root>/stages/<stage>/<key>/` holds a stage's tables and, written last, `manifest.json`; a folder without a manifest is
not an entry. Folders are written beside their final place and then renamed, so readers see a whole entry or none.
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
LOCK_WARNING_SECONDS = 5.0
"""Seconds of waiting for another process after which a warning is logged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What an entry contains and what it was made from."""

    stage: str
    key: str
    parts: dict[str, Any]
    """The stage's own key fields and prompts."""
    parents: dict[str, str]
    """Input -> the key that made it."""
    figures: dict[str, Any]
    rows: dict[str, Any]
    calls: dict[str, Any]
    seconds: float
    created: float
    """Unix time."""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Relative path -> size and digest."""
    contents: dict[str, str] = field(default_factory=dict)
    """Output -> digest of its content, for stages with `key_by_output`."""
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
        """Messages about damaged entries that were set aside."""

    def open(self) -> None:
        """Create the root folder. Raises `UserError` if it can't be written."""
        try:
            (self.root / "stages").mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"store: can't write to {self.root}", got=error.strerror, next_step="give store=FOLDER"
            ) from error

    def path(self, stage: str, key: str) -> Path:
        return self.root / "stages" / stage / key

    def find(self, stage: str, key: str) -> Entry | None:
        """The entry, or None if there is none or it is damaged."""
        found = check_entry(self.path(stage, key))
        return found if isinstance(found, Entry) else None

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[bool]:
        """Lock an entry, so that one process makes it while others wait. Yields whether this process had to wait."""
        from filelock import FileLock, Timeout

        folder = self.path(stage, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{key}.lock"))
        waited = False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waited = True
            _wait(lock, stage, self.root)
        try:
            yield waited
        finally:
            lock.release()

    def scratch(self, stage: str, key: str) -> Path:
        """An empty folder that `commit` turns into the entry."""
        folder = self.path(stage, key).with_name(f".making-{key}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def checkpoint_dir(self, stage: str, key: str) -> Path:
        """A folder that survives a killed process, for checkpoints of a training."""
        folder = self.root / "work" / stage / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, scratch: Path, manifest: Manifest) -> Entry:
        """List the files, write the manifest, and move the folder to its final place."""
        paths = sorted(path for path in scratch.rglob("*") if path.is_file())
        manifest.files.update(
            {
                str(path.relative_to(scratch)): {"size": path.stat().st_size, "digest": file_digest(path)}
                for path in paths
            }
        )
        write_json(scratch / MANIFEST, asdict(manifest))
        target = self.path(manifest.stage, manifest.key)
        shutil.rmtree(target, ignore_errors=True)  # remains of an entry without a manifest
        scratch.rename(target)
        shutil.rmtree(self.root / "work" / manifest.stage / manifest.key, ignore_errors=True)
        return Entry(target, manifest)

    def entries(self, stage: str | None = None) -> list[Entry]:
        """All readable entries, oldest first. Their files are not checked."""
        pattern = f"{stage or '*'}/*/{MANIFEST}"
        folders = (path.parent for path in (self.root / "stages").glob(pattern) if not path.parent.name.startswith("."))
        readable = (entry for folder in folders if (entry := _readable(folder)))
        return sorted(readable, key=lambda entry: entry.manifest.created)

    def get_or_create(self, stage: str, key: str, make: Callable[[Path], Manifest]) -> tuple[Entry, bool]:
        """The entry, and whether it existed. Otherwise one process calls `make(scratch)` to make it."""
        if entry := self.find(stage, key):
            os.utime(entry.folder / MANIFEST)  # `dsrl gc` keeps recently used entries
            return entry, True
        with self.lock(stage, key):
            if entry := self.find(stage, key):
                return entry, True
            self._set_aside(stage, key)
            scratch = self.scratch(stage, key)
            return self.commit(scratch, make(scratch)), False

    def _set_aside(self, stage: str, key: str) -> None:
        """Move a damaged entry away. Call it only with the lock: others may be making the entry again."""
        folder = self.path(stage, key)
        fault = check_entry(folder)
        if isinstance(fault, str):
            aside = folder.with_name(f".damaged-{key}-{uuid.uuid4().hex[:8]}")
            folder.rename(aside)
            self.corrupt.append(
                f"store entry {stage}/{key} is damaged: {fault}; renamed to {aside.name} and made again"
            )


def _wait(lock: "BaseFileLock", stage: str, root: Path) -> None:
    """Wait for the process that makes the entry, with a warning after a while."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=LOCK_WARNING_SECONDS)
    except Timeout:
        log.warning(
            "another process that shares %s is making %s: waiting for it; stop it to continue here", root, stage
        )
        lock.acquire()


def check_entry(folder: Path) -> Entry | str | None:
    """The entry, or a message about its damage, or None if there is none."""
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
    except (ValueError, OSError):  # damaged, or just removed by another process; the next run reports it
        return None


def read_entry(folder: Path) -> Entry:
    """Read an entry's manifest. Raises ValueError if it is not valid."""
    values = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"this version reads format {FORMAT}")
    known = {place.name for place in fields(Manifest)}
    if known != set(values) or not isinstance(values["files"], dict):
        raise ValueError("unknown or missing fields")
    return Entry(folder, Manifest(**values))


def damage(entry: Entry) -> str | None:
    """A message about the first damaged file of an entry, or None."""
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
    """Write a JSON file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
