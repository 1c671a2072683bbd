"""Builds of indexes that are killed, extended, damaged, outdated, or too large for the disk."""

import hashlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import index_build, index_registry
from dsrl.stages.retrieve.corpus import find_corpus
from dsrl.stages.retrieve.index import TantivySearcher
from dsrl.stages.retrieve.index_build import build_index, open_index
from dsrl.stages.retrieve.ingest import Ingest
from tests.command import CHECKOUT, ENVIRONMENT

INGEST = Ingest(max_chars=80)
NUM_TEXTS = 120


def corpus(folder: Path, name: str, first: int = 0, count: int = NUM_TEXTS) -> Path:
    """Documents of several pieces each, with nine duplicates."""
    texts = [
        f"Kite {number} is red. It flies over field {number % 7} and over the hill. It has a tail of {number} bows."
        for number in range(first, first + count)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *texts[:9]]))
    return path


def build(root: Path, *paths: Path) -> tuple[list[object], index_registry.BuiltIndex, str]:
    """Hits of two searches, the index, and the output while it was built."""
    progress = Progress(io.StringIO())
    corpora = [find_corpus(str(path)) for path in paths]
    searcher = open_index(root, corpora, progress, INGEST)
    found: list[object] = [*searcher.search("kite", 1000), *searcher.search("field 3 hill tail", 50)]
    return found, build_index(root, corpora, progress, INGEST), progress.stream.getvalue()  # type: ignore[attr-defined]


KILLED = """
import itertools, os, signal, sys
from pathlib import Path
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import index_build
from dsrl.stages.retrieve.corpus import find_corpus
from dsrl.stages.retrieve.ingest import Ingest

read_pieces = index_build.read_pieces

def killed(*given):
    for number, piece in enumerate(read_pieces(*given)):
        if number == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield piece

index_build.read_pieces, index_build.COMMIT_EVERY, index_build.THREADS = killed, 40, 1
corpora = [find_corpus(path) for path in sys.argv[3:]]
index_build.build_index(Path(sys.argv[2]), corpora, Progress(), Ingest(max_chars=80))
"""


def kill_at(piece: int, root: Path, *paths: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(piece), str(root), *map(str, paths)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.e2e
def test_a_killed_build_is_resumed_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "COMMIT_EVERY", 40)
    path = corpus(tmp_path, "kites")
    expected, whole, _ = build(tmp_path / "whole", path)
    for piece in (0, 41, 130, 200):
        kill_at(piece, tmp_path / "index", path)
        assert list(index_registry.list_indexes(tmp_path / "index")) == []
    found, index, output = build(tmp_path / "index", path)
    assert found == expected
    assert (index.num_pieces, index.report) == (whole.num_pieces, whole.report)
    assert f"{200 // 40 * 40} pieces" in output
    assert [path.name for path in (tmp_path / "index").glob(".making*")] == []


def test_adding_a_corpus_extends_a_copy_of_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "THREADS", 1)  # with more threads tantivy merges their many small files
    one, two = corpus(tmp_path, "one"), corpus(tmp_path, "two", first=NUM_TEXTS - 20)
    expected, whole, _ = build(tmp_path / "whole", one, two)
    before, first, _ = build(tmp_path / "index", one)
    reader = TantivySearcher(first.folder)
    files = {path.name: (path.stat().st_ino, path.read_bytes()) for path in first.folder.iterdir()}
    kill_at(90, tmp_path / "index", one, two)
    found, index, _ = build(tmp_path / "index", one, two)
    assert found == expected
    assert (index.num_pieces, index.report) == (whole.num_pieces, whole.report)
    assert index.report.duplicates == 9 + 9 + 20
    shared = {path.stat().st_ino for path in index.folder.iterdir()} & {inode for inode, _ in files.values()}
    assert shared
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in first.folder.iterdir()} == files
    kites = reader.search("kite", 1000)
    assert kites == before[: len(kites)]


def test_results_do_not_depend_on_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus(tmp_path, "kites")
    found = []
    for threads in (1, 4):
        monkeypatch.setattr(index_build, "THREADS", threads)
        found.append(build(tmp_path / f"by-{threads}", path)[0])
    assert found[0] == found[1]


def test_order_of_corpora_and_piece_size_decide_the_index(tmp_path: Path) -> None:
    one, two = corpus(tmp_path, "one", count=5), corpus(tmp_path, "two", first=3, count=5)
    made = {build(tmp_path / "index", *paths)[1].folder for paths in ((one,), (two,), (one, two), (two, one))}
    corpora = [find_corpus(str(one))]
    made.add(build_index(tmp_path / "index", corpora, Progress(io.StringIO()), Ingest(max_chars=90)).folder)
    assert len(made) == 5
    patient = Ingest(max_chars=80, max_malformed=1)
    assert build_index(tmp_path / "index", corpora, Progress(io.StringIO()), patient).folder in made


@pytest.mark.parametrize("name", ["complete.json", "meta.json", "*.store", "seen.sqlite"])
@pytest.mark.parametrize("harm", ["missing", "cut"])
def test_a_damaged_index_is_rebuilt_with_a_warning(tmp_path: Path, name: str, harm: str) -> None:
    path = corpus(tmp_path, "kites", count=5)
    expected, index, output = build(tmp_path / "index", path)
    assert output == ""
    file, *_ = sorted(index.folder.glob(name))
    file.unlink() if harm == "missing" else file.write_bytes(file.read_bytes()[:5])
    found, _, output = build(tmp_path / "index", path)
    assert found == expected
    assert f"WARNING index {index.folder.name}" in output


def test_an_index_with_overwritten_content_is_rebuilt(tmp_path: Path) -> None:
    path = corpus(tmp_path, "kites", count=5)
    expected, index, _ = build(tmp_path / "index", path)
    meta = index.folder / "meta.json"
    meta.write_bytes(b"{" * meta.stat().st_size)
    found, _, output = build(tmp_path / "index", path)
    assert found == expected
    assert "WARNING" in output


def test_an_index_of_an_older_version_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = corpus(tmp_path, "kites", count=5)
    with monkeypatch.context() as older:
        older.setattr(index_registry, "VERSION", 1)
        expected, before, _ = build(tmp_path / "index", path)
    found, index, output = build(tmp_path / "index", path)
    assert found == expected
    assert index.folder != before.folder
    assert f"version 1, now {index_registry.VERSION}" in output


def test_a_refused_corpus_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "COMMIT_EVERY", 40)
    path = corpus(tmp_path, "kites")
    path.write_bytes(path.read_bytes() + b"?\n" * 200)
    with pytest.raises(UserError, match="max_malformed"):
        build(tmp_path / "index", path)
    assert [path for path in (tmp_path / "index").iterdir() if path.is_dir()] == []


SMALL_DISK = """
import resource, sys
from pathlib import Path
from dsrl.core.errors import StageFailed
from dsrl.pipeline.progress.progress import Progress
from dsrl.stages.retrieve import index_build
from dsrl.stages.retrieve.corpus import find_corpus

resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
index_build.LOW_SPACE_BYTES = 1 << 62
try:
    index_build.build_index(Path(sys.argv[1]), [find_corpus(sys.argv[2])], Progress())
except StageFailed as error:
    print(error)
"""


def test_a_full_disk_is_reported_and_the_next_run_completes(tmp_path: Path) -> None:
    """A limit on the size of files makes writes fail as on a full disk."""
    path = tmp_path / "noise.jsonl"
    words = [hashlib.sha512(str(number).encode()).hexdigest() for number in range(12_000)]
    path.write_text("".join(json.dumps({"text": " ".join(words[n : n + 4])}) + "\n" for n in range(0, 12_000, 4)))
    command = [sys.executable, "-c", SMALL_DISK, str(tmp_path / "index"), str(path)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert "the disk is full" in done.stdout, done.stderr
    assert build(tmp_path / "index", path)[1].report.kept == 3000
