"""Building an index: gone on with after a kill, added to without touching the one before, whole or not there at all."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsrl.core.errors import StageFailed, UserError
from dsrl.pipeline.progress.progress import Progress, Task
from dsrl.pipeline.store import write_json
from dsrl.stages.retrieve import index_registry
from dsrl.stages.retrieve.corpus import Corpus
from dsrl.stages.retrieve.index import ANALYZER, TantivySearcher, analyzer, create, document
from dsrl.stages.retrieve.index_registry import DIGESTS, Index, Wanted
from dsrl.stages.retrieve.ingest.dedup import Seen
from dsrl.stages.retrieve.ingest.options import Ingest
from dsrl.stages.retrieve.ingest.pipeline import read
from dsrl.stages.retrieve.ingest.records import IngestReport

MEMORY = 128 << 20
"""Bytes that building an index may hold before it writes to disk."""
THREADS = min(4, max(1, (os.cpu_count() or 1) - 1))
"""That index while another one reads; they share the memory, and what is found doesn't depend on their number."""
COMMIT_EVERY = 100_000
"""Pieces after which what is there outlives a kill."""
SHOWN_EVERY = 500
BEGUN = "begun.json"
"""Written when a folder is ready to be filled: what is in it already, out of another index."""
BY_SIZE, MEGABYTE = "index (MB)", 1_000_000
LITTLE_SPACE = 64 << 20
"""Bytes free under which a failed write is taken for a full disk."""
MUTABLE = (".json", ".bin")
"""Files that are written anew; all others never change and may be shared between indexes."""


def open_index(
    root: Path, corpora: Sequence[Corpus], progress: Progress, ingest: Ingest | None = None
) -> TantivySearcher:
    """The index of these corpora under `root`, built on first use by one process while others wait."""
    index = build_index(root, corpora, progress, ingest)
    try:
        return TantivySearcher(index.folder)
    except ValueError as error:  # its files have their length, but not their content
        _discard(index.folder, str(error), progress)
        return TantivySearcher(build_index(root, corpora, progress, ingest).folder)


def build_index(root: Path, corpora: Sequence[Corpus], progress: Progress, ingest: Ingest | None = None) -> Index:
    """The whole index of these corpora: the one that is there, or one made now. Raises `UserError` where it was made
    out of more malformed lines than are put up with."""
    wanted = Wanted(tuple(corpora), ingest or Ingest())
    index = _built(root, wanted, progress)
    wanted.ingest.put_up_with(index.report, f"index of {_names(corpora)}")
    return index


def _built(root: Path, wanted: Wanted, progress: Progress) -> Index:
    from filelock import FileLock

    folder = root / wanted.key
    root.mkdir(parents=True, exist_ok=True)
    there = index_registry.found(folder)
    if isinstance(there, Index):
        return there
    with FileLock(root / f".{folder.name}.lock"):
        there = index_registry.found(folder)
        if isinstance(there, Index):
            return there
        if there is not None:
            _discard(folder, there, progress)
        elif change := index_registry.older(root, wanted):
            progress.say(f"index: the one of {_names(wanted.corpora)} is of an older version ({change}); built anew")
        return _build(folder, wanted, progress)


def _build(folder: Path, wanted: Wanted, progress: Progress) -> Index:
    """Fill a folder beside the place and move it in whole."""
    making = folder.with_name(f".making-{folder.name}")
    try:
        begun = _begun(making) or _begin(making, index_registry.beginning(folder.parent, wanted))
        documents, report = _fill(making, begun, wanted, progress)
        (making / BEGUN).unlink()
        index_registry.finish(making, wanted, documents, report)
        making.rename(folder)
    except UserError:  # what is in the folder came out of a corpus that isn't to be trusted
        shutil.rmtree(making, ignore_errors=True)
        raise
    except (OSError, ValueError) as error:
        if _is_full(folder.parent, error):
            raise _full(folder.parent, error) from error
        raise
    index = index_registry.found(folder)
    assert isinstance(index, Index), index
    return index


def _begun(making: Path) -> dict[str, Any] | None:
    """What a killed build left, if it can be gone on with."""
    import tantivy

    try:
        begun: dict[str, Any] = json.loads((making / BEGUN).read_text(encoding="utf-8"))
        tantivy.Index.open(str(making)).searcher()
    except (OSError, ValueError):
        return None
    return begun


def _begin(making: Path, base: Index | None) -> dict[str, Any]:
    """An empty index, or a copy of another one that shares its files."""
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    begun: dict[str, Any] = {"corpora": 0, "documents": 0, "report": asdict(IngestReport())}
    if base is None:
        create(making)
    else:
        _share(base.folder, making)
        begun = {"corpora": len(base.names), "documents": base.documents, "report": asdict(base.report)}
    write_json(making / BEGUN, begun)
    return begun


def _share(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.name == DIGESTS:
            shutil.copyfile(path, target / f"before-{DIGESTS}")
        elif path.suffix in MUTABLE and path.name != index_registry.COMPLETE:
            shutil.copyfile(path, target / path.name)
        elif path.suffix not in MUTABLE and not path.name.startswith("."):
            _link(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _fill(making: Path, begun: dict[str, Any], wanted: Wanted, progress: Progress) -> tuple[int, IngestReport]:
    """Number of pieces in the index, and the report on all of its corpora.

    The stream of pieces is always the same, so after a kill it is read again from its beginning, and those that are
    in the index are passed over.
    """
    import tantivy

    index = tantivy.Index.open(str(making))
    index.register_tokenizer(ANALYZER, analyzer())
    done = index.searcher().num_docs
    if done > begun["documents"]:
        progress.say(f"index: going on after {done} pieces")
    corpora, report = wanted.corpora[begun["corpora"] :], IngestReport()
    writer = index.writer(MEMORY, num_threads=THREADS)
    number = begun["documents"]
    with _remembered(making) as seen, progress.task(*measure(corpora)) as task:
        for piece in read(corpora, wanted.ingest, report, seen):
            if number >= done:
                writer.add_document(document(piece, number))
            number += 1
            if number % SHOWN_EVERY == 0:
                show(task, report)
            if number % COMMIT_EVERY == 0 and number > done:
                writer.commit()
    writer.commit()
    writer.wait_merging_threads()
    (making / f"before-{DIGESTS}").unlink(missing_ok=True)
    _say(report, progress)
    return number, IngestReport.of(begun["report"]).plus(report)


def _remembered(making: Path) -> Seen:
    """The texts of the index that is added to, and none of those that a killed build had added."""
    path, before = making / DIGESTS, making / f"before-{DIGESTS}"
    path.unlink(missing_ok=True)
    if before.is_file():
        shutil.copyfile(before, path)
    return Seen(path)


def measure(corpora: Sequence[Corpus]) -> tuple[str, int | None]:
    """What progress is counted in, and how much there is of it: documents where all are known, else megabytes."""
    rows = [corpus.rows for corpus in corpora]
    sizes = [corpus.size() for corpus in corpora]
    if None in rows and None not in sizes:
        return BY_SIZE, max(1, sum(size or 0 for size in sizes) // MEGABYTE)
    return "index", None if None in rows else sum(row or 0 for row in rows) or None


def show(task: Task, report: IngestReport) -> None:
    figures = {"duplicates": report.duplicates} if report.duplicates else {}
    if task.label == BY_SIZE:
        task.set(report.bytes // MEGABYTE, documents=report.read, **figures)
    else:
        task.set(report.read, **figures)


def _say(report: IngestReport, progress: Progress) -> None:
    if report.num_malformed:
        progress.warn(f"index: {report.num_malformed} lines were no documents, such as {report.malformed[0]}")
    if report.skipped:
        progress.say(f"index: {report.skipped} files of unknown kind were passed over")


def _discard(folder: Path, fault: str, progress: Progress) -> None:
    progress.warn(f"index {folder.name} is damaged: {fault}; built anew")
    shutil.rmtree(folder, ignore_errors=True)


def _is_full(root: Path, error: Exception) -> bool:
    import errno

    told = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return told or shutil.disk_usage(root).free < LITTLE_SPACE


def _full(root: Path, error: Exception) -> StageFailed:
    return StageFailed(
        f"the disk is full: the index under {root} can't be finished",
        got=f"{shutil.disk_usage(root).free / 1e6:.0f} MB free; {error}",
        next_step="make room, or give store=FOLDER on another disk, and run again: it goes on where it stopped",
    )


def _names(corpora: Sequence[Corpus]) -> str:
    return ", ".join(corpus.name for corpus in corpora)
