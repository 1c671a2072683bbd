import errno
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Reply, Usage
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.llm.reply_cache.index import RecordLocation, pack, unpack
from dsrl.llm.reply_cache.segments import Segment, encode, record_id

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]}
ABC = "abc".ljust(32, "0")


def reply(text: str, index: int = 0, digest: str = ABC) -> Reply:
    usage = Usage(input_tokens=7, cached_tokens=2, output_tokens=3)
    return Reply(text=text, finish_reason="stop", usage=usage, call=f"{digest}:{index}")


def put(store: ReplyCache, *texts: str, digest: str = ABC, first: int = 0) -> None:
    replies = {first + i: reply(text, first + i, digest) for i, text in enumerate(texts)}
    store.put(digest, REQUEST, replies, "m-1")


def filled(folder: Path, *texts: str) -> Path:
    """The segment of a writer that is done."""
    store = ReplyCache(folder)
    put(store, *texts)
    store.close()
    (path,) = segments(folder)
    return path


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


@pytest.mark.parametrize("fsync", [False, True])
def test_what_was_put_is_there_at_once_and_for_the_next_process(tmp_path: Path, fsync: bool) -> None:
    store = ReplyCache(tmp_path / "new" / "calls", fsync)
    assert store.get(ABC, 0) is None
    put(store, "four", "vier\n\u2028\x00", "")
    for seen in (store, ReplyCache(store.folder)):
        assert seen.get(ABC, 0) == reply("four")
        assert seen.get(ABC, 1) == reply("vier\n\u2028\x00", 1)
        assert seen.get(ABC, 2) == reply("", 2)
        assert seen.get(ABC, 3) is None
        assert seen.request(ABC) == REQUEST
        assert seen.request("0" * 32) is None
        assert len(seen) == 3


def test_nothing_is_touched_before_first_use_and_reading_makes_no_file(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path / "calls")
    assert not store.folder.exists()
    assert store.get(ABC, 0) is None
    assert segments(store.folder) == []


def test_the_request_is_stored_once_and_equal_requests_stay_apart_by_index(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path)
    put(store, "same", "same")
    put(store, "same", first=2)
    assert len(store) == 3
    assert segments(tmp_path)[0].read_text().count("2 + 2?") == 1


def test_the_first_of_two_replies_to_one_call_stays(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path)
    put(store, "first")
    put(store, "second")
    assert store.get(ABC, 0) == reply("first")
    assert ReplyCache(tmp_path).get(ABC, 0) == reply("first")


@pytest.mark.parametrize("cut", [1, 2, 60, 100])
def test_a_damaged_tail_is_cut_off_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int) -> None:
    path = filled(tmp_path, "one", "two")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = len(whole.splitlines(keepends=True)[-1]) - cut
    store = ReplyCache(tmp_path)
    assert (store.get(ABC, 0), store.get(ABC, 1)) == (reply("one"), None)
    store.refresh()
    assert [message.partition(" of a killed")[0] for message in caplog.messages] == [
        f"{path}: the last {left} bytes are an unfinished line"
    ]
    put(store, "two again", first=1)
    assert ReplyCache(tmp_path).get(ABC, 1) == reply("two again", 1)
    path.write_bytes(whole)
    store.refresh()
    assert len(store) == 2


DAMAGE = [(b"two", b"tw0"), (b'"id":"abc', b'"id":"abd'), (b'{"v":1', b"\x00\x00\x00\x00\x00\x00"), (b"}\n", b"\n\n")]


@pytest.mark.parametrize(("old", "new"), DAMAGE)
def test_a_damaged_line_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, old: bytes, new: bytes
) -> None:
    path = filled(tmp_path, "one", "two", "three")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(old, new, 1)
    path.write_bytes(b"".join(lines))
    store = ReplyCache(tmp_path)
    assert store.get(ABC, 1) is None
    assert store.get(ABC, 2) == reply("three", 2)
    assert caplog.messages[0].startswith(f"{path}, line 3: damaged")


def test_a_newer_format_is_not_paid_for_again(tmp_path: Path) -> None:
    path = filled(tmp_path, "one")
    path.write_bytes(path.read_bytes().replace(b'{"v":1', b'{"v":2'))
    with pytest.raises(UserError, match="newer dsrl"):
        ReplyCache(tmp_path).get(ABC, 0)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("")
    with pytest.raises(UserError, match="not a writable folder"):
        ReplyCache(tmp_path / "calls").get(ABC, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_fails_the_stage_and_the_next_reply_goes_to_a_new_file(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path)
    put(store, "one")
    assert store._writer is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, store._writer._descriptor)
    os.close(full)
    with pytest.raises(StageFailed, match="could not be stored"):
        put(store, "two", first=1)
    put(store, "two", first=1)
    assert ReplyCache(tmp_path).get(ABC, 1) == reply("two", 1)


def _write(folder: Path, name: str, count: int) -> None:
    store = ReplyCache(folder)
    for i in range(count):
        put(store, f"{name} {i}", f"{name} {i} again", digest=f"{name}{i:031}")


def test_two_processes_write_and_a_third_sees_it_grow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = ReplyCache(tmp_path)
    assert len(reader) == 0
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(tmp_path, name, 100)) for name in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        with caplog.at_level(logging.CRITICAL):
            reader.refresh()
    for writer in writers:
        writer.join()
    reader.refresh()
    assert (len(reader), len(segments(tmp_path))) == (400, 2)
    assert [reader.get(f"{name}{99:031}", 1) for name in "ab"] == [
        reply(f"{name} 99 again", 1, f"{name}{99:031}") for name in "ab"
    ]


def test_a_forked_child_writes_to_a_file_of_its_own(tmp_path: Path) -> None:
    store = ReplyCache(tmp_path)
    put(store, "parent")
    child = multiprocessing.get_context("fork").Process(target=lambda: put(store, "child", first=1))
    child.start()
    child.join()
    put(store, "parent again", first=2)
    assert len(segments(tmp_path)) == 2
    assert len(ReplyCache(tmp_path)) == 3


def test_more_segments_than_open_files(tmp_path: Path) -> None:
    for i in range(70):
        store = ReplyCache(tmp_path)
        put(store, str(i), first=i)
        store.close()
    store = ReplyCache(tmp_path)
    assert [store.get(ABC, i) for i in range(70)] == [reply(str(i), i) for i in range(70)]
    assert len(store._readers) == 64
    store.close()
    assert store.get(ABC, 3) == reply("3", 3)


@given(st.from_regex(r"[0-9a-f]{32}(:[0-9]{1,4})?", fullmatch=True), st.text(), st.integers(0), st.integers(1, 255))
def test_any_changed_byte_is_noticed(name: str, text: str, where: int, change: int) -> None:
    line = encode(name, {"text": text})
    assert record_id(line) == name.encode()
    changed = bytearray(line)
    changed[where % len(line)] ^= change
    assert record_id(bytes(changed)) is None


@given(st.integers(0, 1 << 20), st.integers(0, (1 << 44) - 1), st.integers(0, (1 << 32) - 1))
def test_places_are_packed_without_loss(number: int, offset: int, length: int) -> None:
    assert unpack(pack(RecordLocation(number, offset, length))) == (number, offset, length)


def test_a_kill_at_any_byte_leaves_all_whole_replies_and_no_wrong_one(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole", "one", "zwei\n", "three").read_bytes()
    ends = [end for end in range(1, len(whole) + 1) if whole[end - 1 : end] == b"\n"]
    path = tmp_path / "cut" / "2026-cut-1-0.jsonl"
    path.parent.mkdir()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        store = ReplyCache(path.parent)
        whole_lines = sum(end <= length for end in ends)
        found = [store.get(ABC, i) for i in range(3)]
        assert found == [
            reply(text, i) if whole_lines > i + 1 else None for i, text in enumerate(("one", "zwei\n", "three"))
        ]
        assert store.request(ABC) == (REQUEST if whole_lines else None)
        store.close()


def test_an_unfinished_line_of_a_living_writer_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer, reader = ReplyCache(tmp_path), ReplyCache(tmp_path)
    put(writer, "one")
    (path,) = segments(tmp_path)
    line = path.read_bytes()
    with path.open("ab") as file:
        file.write(line[:40])
        file.flush()
        assert reader.get(ABC, 0) == reply("one")
        assert caplog.messages == []
        writer.close()
        reader.refresh()
    assert "the last 40 bytes are an unfinished line" in caplog.messages[0]
    assert "dsrl gc" in caplog.messages[0]


@pytest.fixture
def indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A segment of 90 lines and its index."""
    monkeypatch.setattr("dsrl.llm.reply_cache.index.MIN_TABLE_LINES", 50)
    store = ReplyCache(tmp_path)
    for i in range(30):
        put(store, f"text {i}", f"text {i} again", digest=f"{i:032x}")
    store.close()
    assert len(ReplyCache(tmp_path)) == 60
    (path,) = segments(tmp_path)
    assert path.with_suffix(".index").exists()
    return path


def all_there(folder: Path, missing: int | None = None) -> bool:
    store = ReplyCache(folder)
    found = [store.get(f"{i:032x}", 1) for i in range(30)]
    return found == [None if i == missing else reply(f"text {i} again", 1, f"{i:032x}") for i in range(30)]


def test_an_index_spares_reading_the_segment(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    scan = Segment.scan
    monkeypatch.setattr(Segment, "scan", lambda segment: read.append(segment.position) or scan(segment))
    assert all_there(indexed.parent)
    assert len(ReplyCache(indexed.parent)) == 60
    assert set(read) <= {indexed.stat().st_size}


def test_lines_behind_an_index_are_found(indexed: Path) -> None:
    later = indexed.with_name("later.jsonl")
    store = ReplyCache(indexed.parent)
    put(store, "later", digest="f" * 32)
    store.close()
    (later,) = set(segments(indexed.parent)) - {indexed}
    with indexed.open("ab") as file:
        file.write(later.read_bytes())
    later.unlink()
    assert all_there(indexed.parent)
    assert ReplyCache(indexed.parent).get("f" * 32, 0) == reply("later", 0, "f" * 32)


INDEX_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "short": lambda data: data[:-7],
    "no index": lambda data: b"x" * len(data),
    "a changed byte": lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    "a changed header": lambda data: data[:8] + b"\xff" * 8 + data[16:],
}


@pytest.mark.parametrize("name", INDEX_DAMAGE)
def test_an_index_that_does_not_fit_is_made_again(indexed: Path, name: str) -> None:
    index = indexed.with_suffix(".index")
    good = index.read_bytes()
    index.write_bytes(INDEX_DAMAGE[name](good))
    assert all_there(indexed.parent)
    assert index.read_bytes() == good


def test_damage_behind_an_index_is_noticed_when_the_line_is_read(
    indexed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    indexed.write_bytes(indexed.read_bytes().replace(b"text 7 again", b"text 7 aga1n"))
    assert all_there(indexed.parent, missing=7)
    assert [message.partition(": damaged")[0] for message in caplog.messages] == [f"{indexed}, line 24"]
    store = ReplyCache(indexed.parent)
    put(store, "text 7 again", digest=f"{7:032x}", first=1)
    store.close()
    assert all_there(indexed.parent)


def test_a_cut_segment_with_an_index_loses_only_what_was_cut(indexed: Path) -> None:
    indexed.write_bytes(indexed.read_bytes()[:-30])
    assert all_there(indexed.parent, missing=29)


def test_a_claim_keeps_other_processes_from_asking_and_ends_with_its_process(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    pipe, theirs = fork.Pipe()

    def other() -> None:
        store = ReplyCache(tmp_path)
        assert store.try_lock(ABC)
        theirs.send("claimed")
        theirs.recv()
        put(store, "theirs")
        os.kill(os.getpid(), signal.SIGKILL)

    store = ReplyCache(tmp_path)
    assert store.get(ABC, 0) is None
    child = fork.Process(target=other)
    child.start()
    assert pipe.recv() == "claimed"
    assert not store.try_lock(ABC)
    assert store.try_lock("d" * 32)
    pipe.send("go on")
    child.join()
    assert store.try_lock(ABC)
    assert store.get(ABC, 0) == reply("theirs")
    assert store.try_lock(ABC), "the same process may ask for several completions at once"
    for _ in range(2):
        store.unlock(ABC)
    store.close()


def _ask_for_all(folder: Path, asked: Path) -> None:
    """What a client does, with a file for an endpoint."""
    store = ReplyCache(folder)
    for i in range(40):
        digest = f"{i:032x}"
        while store.get(digest, 0) is None:
            if store.try_lock(digest):
                if store.get(digest, 0) is None:
                    with asked.open("a") as file:
                        file.write(f"{i}\n")
                    put(store, str(i), digest=digest)
                store.unlock(digest)


def test_processes_that_ask_for_the_same_pay_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    askers = [fork.Process(target=_ask_for_all, args=(tmp_path / "calls", tmp_path / "asked")) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert [asker.exitcode for asker in askers] == [0, 0, 0]
    assert sorted(map(int, (tmp_path / "asked").read_text().split())) == list(range(40))


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment in (2e9, 1e9, 1e9):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        monkeypatch.setattr("time.gmtime", lambda moment=moment: (2001, 9, 9, 1, 46, 40, 6, 252, 0))
        store = ReplyCache(tmp_path)
        put(store, "text", first=len(segments(tmp_path)))
        store.close()
    assert len(segments(tmp_path)) == 3
    assert [ReplyCache(tmp_path).get(ABC, i) for i in range(3)] == [reply("text", i) for i in range(3)]


def _fill(folder: Path, limit: int) -> None:
    """Puts replies of two completions until the file may not grow any more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    store = ReplyCache(folder)
    put(store, "small", "reply")
    with pytest.raises(StageFailed, match="could not be stored") as caught:
        put(store, "a", "b" * limit, digest="d" * 32)
    assert caught.value.exit_code == 3
    put(store, "after", digest="e" * 32)


def test_a_file_that_cannot_grow_keeps_all_of_a_reply_or_none(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path, 4096))
    child.start()
    child.join()
    assert child.exitcode == 0
    store = ReplyCache(tmp_path)
    assert len(segments(tmp_path)) == 2
    assert [store.get(ABC, 1), store.get("d" * 32, 0), store.get("e" * 32, 0)] == [
        reply("reply", 1),
        None,
        reply("after", 0, "e" * 32),
    ]


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, "one")
    monkeypatch.setattr(os, "access", lambda *_: False)
    store = ReplyCache(tmp_path)
    assert store.get(ABC, 0) == reply("one"), "reading needs no right to write"
    with pytest.raises(UserError, match="not a writable folder"):
        store.refresh()


def test_a_folder_that_becomes_read_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, mode)

    store = ReplyCache(tmp_path)
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StageFailed, match=r"Read-only file system[\s\S]*mount it writable"):
        put(store, "one")


def test_claims_are_given_where_they_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / ".claims").mkdir()
    store = ReplyCache(tmp_path)
    assert store.try_lock(ABC)
    store.unlock(ABC)


def test_claims_are_open_to_whoever_may_write_to_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    store = ReplyCache(tmp_path)
    assert store.try_lock(ABC)
    assert (tmp_path / ".claims").stat().st_mode & 0o777 == 0o664
    store.close()


def test_replies_under_way_when_the_disk_is_full_go_into_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ReplyCache(tmp_path)
    put(store, "one")
    write, writer = os.write, store._writer
    assert writer is not None

    def full(descriptor: int, data: memoryview) -> int:
        """Takes half of what it gets as long as the reserve takes up the room."""
        if writer._reserve is None:
            return write(descriptor, data)
        write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StageFailed, match="No space left"):
        put(store, "two", first=1)
    put(store, "three", first=2)
    store.close()
    (path,) = segments(tmp_path)
    assert path.read_bytes().count(b"\n") == 4
    assert [ReplyCache(tmp_path).get(ABC, i) for i in range(3)] == [reply("one"), reply("two", 1), reply("three", 2)]
