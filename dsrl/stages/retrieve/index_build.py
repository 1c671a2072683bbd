"""Builds embedded indexes: resumable after a kill, incremental, and complete or absent."""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress, Task
from dsrl.pipeline.store import write_json
from dsrl.stages.retrieve.corpus import Corpus
from dsrl.stages.retrieve.index import ANALYZER, TantivySearcher, create_index, make_analyzer, make_document
from dsrl.stages.retrieve.index_registry import (
    COMPLETE,
    SEEN,
    BuiltIndex,
    IndexSpec,
    find_extendable,
    load_index,
    mark_complete,
    outdated_by,
)
from dsrl.stages.retrieve.ingest.dedup import SeenTexts
from dsrl.stages.retrieve.ingest.pipeline import read_pieces
from dsrl.stages.retrieve.ingest.records import Ingest, IngestReport

WRITER_BYTES = 128 << 20
"""Memory of the index writer, shared by its threads."""
THREADS = min(4, max(1, (os.cpu_count() or 1) - 1))
"""Indexing threads; results don't depend on their number."""
COMMIT_EVERY = 100_000
"""Pieces between commits; what is committed survives a kill."""
SHOW_EVERY = 500
START_STATE = "begun.json"
"""Written when a folder is ready to be filled: what the index that is extended contains."""
BASE_SEEN = f"before-{SEEN}"
"""The texts of the index that is extended."""
BY_SIZE, MEGABYTE = "index (MB)", 1_000_000
LOW_SPACE_BYTES = 64 << 20
"""A write that failed with less free space than this is reported as a full disk."""


def open_index(
    root: Path, corpora: Sequence[Corpus], progress: Progress, ingest: Ingest | None = None
) -> TantivySearcher:
    """Open the index of these corpora under `root`; the first process builds it while others wait."""
    index = build_index(root, corpora, progress, ingest)
    try:
        return TantivySearcher(index.folder)
    except ValueError as error:  # files of the right size with the wrong content
        _discard(index.folder, str(error), progress)
        return TantivySearcher(build_index(root, corpora, progress, ingest).folder)


def build_index(root: Path, corpora: Sequence[Corpus], progress: Progress, ingest: Ingest | None = None) -> BuiltIndex:
    """The complete index of these corpora, built now if it isn't there.

    Raises `UserError` if the index, even an existing one, has more malformed rows than `ingest.max_malformed`.
    """
    from filelock import FileLock

    spec = IndexSpec(tuple(corpora), ingest or Ingest())
    folder = root / spec.key
    root.mkdir(parents=True, exist_ok=True)
    index = load_index(folder)
    if not isinstance(index, BuiltIndex):
        with FileLock(root / f".{folder.name}.lock"):
            index = load_index(folder)
            if isinstance(index, str):
                _discard(folder, index, progress)
            elif index is None and (change := outdated_by(root, spec)):
                progress.say(f"index: rebuilding the one of {spec.names}, built by an older version ({change})")
            if not isinstance(index, BuiltIndex):
                index = _build(folder, spec, progress)
    spec.ingest.check_malformed(index.report, f"index of {spec.names}")
    return index


def _build(folder: Path, spec: IndexSpec, progress: Progress) -> BuiltIndex:
    """Fill a hidden folder beside the final one, then rename it."""
    building = folder.with_name(f".making-{folder.name}")
    try:
        start = _resume(building) or _start(building, find_extendable(folder.parent, spec))
        num_pieces, report = _fill(building, start, spec, progress)
        (building / START_STATE).unlink()
        mark_complete(building, spec, num_pieces, report)
        building.rename(folder)
    except UserError:  # the corpus was refused, so pieces from it must not be resumed
        shutil.rmtree(building, ignore_errors=True)
        raise
    except (OSError, ValueError, sqlite3.Error) as error:
        free = shutil.disk_usage(folder.parent).free
        if free < LOW_SPACE_BYTES or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise StageFailed(
                f"the disk is full: the index under {folder.parent} can't be completed",
                got=f"{free / 1e6:.0f} MB free; {error}",
                next_step="free some space, or set store=FOLDER on another disk, and run again: it will be resumed",
            ) from error
        raise
    index = load_index(folder)
    assert isinstance(index, BuiltIndex), index
    return index


def _resume(building: Path) -> dict[str, Any] | None:
    """The start state of a killed build; None if it can't be resumed."""
    import tantivy

    try:
        start: dict[str, Any] = json.loads((building / START_STATE).read_text(encoding="utf-8"))
        tantivy.Index.open(str(building)).searcher()
    except (OSError, ValueError):
        return None
    return start if not start["corpora"] or (building / BASE_SEEN).is_file() else None


def _start(building: Path, base: BuiltIndex | None) -> dict[str, Any]:
    """Set up an empty index, or a copy of `base` that shares its files by hard links."""
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    start: dict[str, Any] = {"corpora": 0, "documents": 0, "report": asdict(IngestReport())}
    if base is None:
        create_index(building)
    else:
        _share_files(base.folder, building)
        start = {"corpora": len(base.corpus_names), "documents": base.num_pieces, "report": asdict(base.report)}
    write_json(building / START_STATE, start)
    return start


def _share_files(source: Path, target: Path) -> None:
    """Copy the files that tantivy and we rewrite in place; link all others, which never change."""
    for path in source.iterdir():
        if path.name == SEEN:
            shutil.copyfile(path, target / BASE_SEEN)
        elif path.suffix == ".json" and path.name != COMPLETE:
            shutil.copyfile(path, target / path.name)
        elif path.suffix != ".json" and not path.name.startswith("."):
            try:
                os.link(path, target / path.name)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, target / path.name)


def _fill(building: Path, start: dict[str, Any], spec: IndexSpec, progress: Progress) -> tuple[int, IngestReport]:
    """Index all pieces; return their number and the report on all corpora.

    The stream of pieces is deterministic, so after a kill it is read again from the start, and pieces that are already
    committed are skipped.
    """
    import tantivy

    index = tantivy.Index.open(str(building))
    index.register_tokenizer(ANALYZER, make_analyzer())
    committed = index.searcher().num_docs
    if committed > start["documents"]:
        progress.say(f"index: resuming after {committed} pieces")
    # texts that a killed build added are not in the base, and would be taken for duplicates
    seen_path, base_seen = building / SEEN, building / BASE_SEEN
    seen_path.unlink(missing_ok=True)
    if base_seen.is_file():
        shutil.copyfile(base_seen, seen_path)
    corpora, report = spec.corpora[start["corpora"] :], IngestReport()
    writer = index.writer(WRITER_BYTES, num_threads=THREADS)
    number = start["documents"]
    with closing(SeenTexts(seen_path)) as seen, progress.task(*progress_unit(corpora)) as task:
        for piece in read_pieces(corpora, spec.ingest, report, seen):
            if number >= committed:
                writer.add_document(make_document(piece, number))
            number += 1
            if number % SHOW_EVERY == 0:
                show_progress(task, report)
            if number % COMMIT_EVERY == 0 and number > committed:
                writer.commit()
    writer.commit()
    writer.wait_merging_threads()
    base_seen.unlink(missing_ok=True)
    if report.num_malformed:
        progress.warn(f"index: skipped {report.num_malformed} malformed rows, such as {report.malformed[0]}")
    if report.skipped:
        progress.say(f"index: skipped {report.skipped} files of unknown format")
    return number, IngestReport.from_json(start["report"]).merge(report)


def progress_unit(corpora: Sequence[Corpus]) -> tuple[str, int | None]:
    """Label and total of the progress bar: documents if every corpus states its number, else megabytes read."""
    rows = [corpus.rows for corpus in corpora]
    sizes = [corpus.num_bytes() for corpus in corpora]
    if None in rows and None not in sizes:
        return BY_SIZE, max(1, sum(size or 0 for size in sizes) // MEGABYTE)
    return "index", None if None in rows else sum(row or 0 for row in rows) or None


def show_progress(task: Task, report: IngestReport) -> None:
    """Update the progress bar of `progress_unit`."""
    figures = {"duplicates": report.duplicates} if report.duplicates else {}
    if task.label == BY_SIZE:
        task.set(report.bytes // MEGABYTE, documents=report.read, **figures)
    else:
        task.set(report.read, **figures)


def _discard(folder: Path, fault: str, progress: Progress) -> None:
    progress.warn(f"index {folder.name} is damaged: {fault}; rebuilding it")
    shutil.rmtree(folder, ignore_errors=True)
