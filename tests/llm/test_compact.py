import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from dsrl.core.errors import UserError
from dsrl.data.model import Reply, Usage
from dsrl.llm.reply_cache import compact as module
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.reply_cache.compact import Compaction, compact
from dsrl.llm.reply_cache.segments import encode

REQUEST = {"model": "m", "messages": []}


def digest(number: int) -> str:
    return f"{number:032x}"


def put(store: ReplyCache, number: int, *texts: str) -> None:
    name = digest(number)
    replies = {
        i: Reply(text=text, finish_reason="stop", usage=Usage(), call=f"{name}:{i}") for i, text in enumerate(texts)
    }
    store.put(name, REQUEST, replies, "m")


def written(folder: Path, numbers: range, text: str = "text") -> Path:
    """A segment of its own, whose writer is done."""
    before = set(folder.glob("*.jsonl"))
    store = ReplyCache(folder)
    for number in numbers:
        put(store, number, f"{text} {number}", f"{text} {number} again")
    store.close()
    (path,) = set(folder.glob("*.jsonl")) - before
    return path


def copied(source: Path, name: str) -> Path:
    """A segment with the same records, as two processes leave that ask for the same."""
    path = source.with_name(name)
    path.write_bytes(source.read_bytes())
    return path


def texts(folder: Path, numbers: range) -> list[str | None]:
    store = ReplyCache(folder)
    found = [store.get(digest(number), index) for number in numbers for index in range(2)]
    return [reply and reply.text for reply in found]


def expected(numbers: range, text: str = "text") -> list[str]:
    return [f"{text} {number}{again}" for number in numbers for again in ("", " again")]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def test_finished_segments_become_one_without_duplicates_and_damage(tmp_path: Path) -> None:
    parts = [written(tmp_path, range(start, start + 10)) for start in (0, 10, 20)]
    copied(parts[0], "9-copy.jsonl")
    lines = parts[1].read_bytes().splitlines(keepends=True)
    parts[1].write_bytes(b"".join(lines[:-3]) + b"damaged\n" + b"".join(lines[-3:]) + lines[-1][:20])
    os.utime(tmp_path / "9-copy.jsonl", (1, 1))
    before = sum(path.stat().st_size for path in segments(tmp_path))
    planned = compact(tmp_path, sure=False)
    assert len(segments(tmp_path)) == 4
    done = compact(tmp_path, sure=True)
    assert done == planned
    assert (done.num_files, done.num_files_after, done.num_duplicates, done.num_damaged) == (4, 1, 30, 2)
    assert (done.size, done.size_after) == (before, segments(tmp_path)[0].stat().st_size)
    assert texts(tmp_path, range(30)) == expected(range(30))
    assert ReplyCache(tmp_path).request(digest(3)) == REQUEST
    assert compact(tmp_path, sure=True).num_files_after == 1
    assert "4 files" in str(done)
    assert "30 duplicates and 2 damaged lines" in str(done)


def test_the_reply_that_was_served_is_the_one_that_stays(tmp_path: Path) -> None:
    first = written(tmp_path / "a", range(5), "first")
    second = written(tmp_path / "b", range(5), "second")
    first.rename(tmp_path / f"20200101-{module.host_name()}-1-0.jsonl")
    second.rename(tmp_path / f"20200102-{module.host_name()}-1-0.jsonl")
    written(tmp_path, range(5, 6))
    assert texts(tmp_path, range(5)) == expected(range(5), "first")
    compact(tmp_path, sure=True)
    assert len(segments(tmp_path)) == 1
    assert texts(tmp_path, range(5)) == expected(range(5), "first")


def test_what_a_writer_holds_is_left_exclusive(tmp_path: Path) -> None:
    written(tmp_path, range(5))
    written(tmp_path, range(5, 10))
    busy = ReplyCache(tmp_path)
    put(busy, 20, "busy")
    done = compact(tmp_path, sure=True)
    assert (done.num_files, done.num_files_after, done.num_busy) == (3, 2, 1)
    assert "1 in use" in str(done)
    put(busy, 21, "still busy")
    assert busy.get(digest(3), 0) is not None
    found = ReplyCache(tmp_path).get(digest(21), 0)
    assert found is not None
    assert found.text == "still busy"


def test_files_of_other_machines_are_left_exclusive_for_a_day(tmp_path: Path) -> None:
    for number in range(2):
        written(tmp_path, range(number, number + 1)).rename(tmp_path / f"20260101-elsewhere-{number}-0.jsonl")
    assert compact(tmp_path, sure=True).num_busy == 2
    for path in segments(tmp_path):
        os.utime(path, (1, 1))
    assert compact(tmp_path, sure=True).num_files_after == 1
    assert texts(tmp_path, range(2)) == expected(range(2))


def test_a_reader_finds_its_records_after_their_files_were_merged(tmp_path: Path) -> None:
    for start in (0, 10):
        written(tmp_path, range(start, start + 10))
    reader = ReplyCache(tmp_path)
    assert reader.get(digest(0), 0) is not None
    compact(tmp_path, sure=True)
    found = [reader.get(digest(number), 1) for number in range(20)]
    assert [reply and reply.text for reply in found] == [f"text {number} again" for number in range(20)]
    assert reader.get(digest(99), 0) is None
    reader.refresh()
    assert len(reader) == 40


def test_a_writer_whose_file_is_taken_away_writes_again_elsewhere(tmp_path: Path) -> None:
    """As where two machines share a file system without locks."""
    store = ReplyCache(tmp_path)
    put(store, 0, "kept by the other")
    (path,) = segments(tmp_path)
    copied(path, "0000-merged-0.jsonl")
    path.unlink()
    put(store, 1, "not lost")
    assert [reply and reply.text for reply in (store.get(digest(0), 0), store.get(digest(1), 0))] == [
        "kept by the other",
        "not lost",
    ]
    store.close()
    assert len(ReplyCache(tmp_path)) == 2


def test_a_merged_file_is_cut_at_its_size_and_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in range(0, 40, 10):
        written(tmp_path, range(start, start + 10))
    size = segments(tmp_path)[0].stat().st_size
    monkeypatch.setattr(module, "MAX_MERGED_BYTES", size)
    monkeypatch.setattr(module, "SMALL_BYTES", size // 2)
    copied(segments(tmp_path)[0], "9.jsonl")
    os.utime(tmp_path / "9.jsonl", (1, 1))
    assert compact(tmp_path, sure=True).num_duplicates == 30
    assert len(segments(tmp_path)) == 4
    names = segments(tmp_path)
    assert compact(tmp_path, sure=True).num_files_after == 4
    assert segments(tmp_path) == names
    assert texts(tmp_path, range(40)) == expected(range(40))


def test_two_at_once_and_a_newer_store_are_refused(tmp_path: Path) -> None:
    written(tmp_path, range(3))
    with module._exclusive(tmp_path), pytest.raises(UserError, match="another gc"):
        compact(tmp_path, sure=True)
    (path,) = segments(tmp_path)
    path.write_bytes(encode("a" * 32, {"text": ""}).replace(b'"v":1', b'"v":9'))
    with pytest.raises(UserError, match="newer dsrl"):
        compact(tmp_path, sure=True)
    assert path.exists()


def test_there_may_be_nothing(tmp_path: Path) -> None:
    assert compact(tmp_path / "none", sure=True) == Compaction(0, 0, 0, 0, 0, 0, 0)
    assert not (tmp_path / "none").exists()
    assert compact(tmp_path, sure=True).num_files == 0


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in (0, 5):
        written(tmp_path, range(start, start + 5))
    before = segments(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsrl.llm.reply_cache.compact.os.fsync", full)
    with pytest.raises(UserError, match="could not be merged"):
        compact(tmp_path, sure=True)
    assert segments(tmp_path) == before
    assert list(tmp_path.glob(".merging*")) == []


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, nth: int) -> None:
    """The process dies before its nth call that changes something on the disk."""
    for start in (0, 5, 10):
        written(tmp_path, range(start, start + 5))

    def doomed() -> None:
        steps = iter(range(1, 1000))
        for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "touch"), (os, "open")):
            done = getattr(owner, name)

            def step(*arguments: object, done=done, **named: object) -> object:
                if next(steps) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done(*arguments, **named)

            setattr(owner, name, step)
        compact(tmp_path, sure=True)

    child = multiprocessing.get_context("fork").Process(target=doomed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert texts(tmp_path, range(15)) == expected(range(15))
    assert len(ReplyCache(tmp_path)) == 30
    assert compact(tmp_path, sure=True).num_files_after == 1
    assert texts(tmp_path, range(15)) == expected(range(15))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".merging")] == []


def _write(folder: Path, start: int) -> None:
    store = ReplyCache(folder)
    for number in range(start, start + 60):
        put(store, number, f"text {number}", f"text {number} again")
        if random.random() < 0.2:
            store.close()
    store.close()


def test_beside_writers_that_come_and_go(tmp_path: Path) -> None:
    reader = ReplyCache(tmp_path)
    writers = [multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path, 60 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        compact(tmp_path, sure=True)
        reader.get(digest(0), 0)
    for writer in writers:
        writer.join()
    assert texts(tmp_path, range(180)) == expected(range(180))
    reader.refresh()
    assert len(reader) == 360
    assert compact(tmp_path, sure=True).num_files_after == 1
    assert texts(tmp_path, range(180)) == expected(range(180))
