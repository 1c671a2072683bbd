import logging
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsrl.errors import StageFailed, UserError
from dsrl.llm.calls import CallsStore, _parts, _place
from dsrl.llm.segments import encode, record_id
from dsrl.model import Reply, Usage

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "2 + 2?"}]}
ABC = "abc".ljust(32, "0")


def reply(text: str, index: int = 0, digest: str = ABC) -> Reply:
    usage = Usage(input_tokens=7, cached_tokens=2, output_tokens=3)
    return Reply(text=text, finish_reason="stop", usage=usage, call=f"{digest}:{index}")


def put(store: CallsStore, *texts: str, digest: str = ABC, first: int = 0) -> None:
    replies = {first + i: reply(text, first + i, digest) for i, text in enumerate(texts)}
    store.put(digest, REQUEST, replies, "m-1")


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


@pytest.mark.parametrize("fsync", [False, True])
def test_what_was_put_is_there_at_once_and_for_the_next_process(tmp_path: Path, fsync: bool) -> None:
    store = CallsStore(tmp_path / "new" / "calls", fsync)
    assert store.get(ABC, 0) is None
    put(store, "four", "vier\n\u2028\x00", "")
    for seen in (store, CallsStore(store.folder)):
        assert seen.get(ABC, 0) == reply("four")
        assert seen.get(ABC, 1) == reply("vier\n\u2028\x00", 1)
        assert seen.get(ABC, 2) == reply("", 2)
        assert seen.get(ABC, 3) is None
        assert seen.request(ABC) == REQUEST
        assert seen.request("0" * 32) is None
        assert len(seen) == 3


def test_nothing_is_touched_before_first_use_and_reading_makes_no_file(tmp_path: Path) -> None:
    store = CallsStore(tmp_path / "calls")
    assert not store.folder.exists()
    assert store.get(ABC, 0) is None
    assert segments(store.folder) == []


def test_the_request_is_stored_once_and_equal_requests_stay_apart_by_index(tmp_path: Path) -> None:
    store = CallsStore(tmp_path)
    put(store, "same", "same")
    put(store, "same", first=2)
    assert len(store) == 3
    assert segments(tmp_path)[0].read_text().count("2 + 2?") == 1


def test_the_first_of_two_replies_to_one_call_stays(tmp_path: Path) -> None:
    store = CallsStore(tmp_path)
    put(store, "first")
    put(store, "second")
    assert store.get(ABC, 0) == reply("first")
    assert CallsStore(tmp_path).get(ABC, 0) == reply("first")


@pytest.mark.parametrize("cut", [1, 2, 60, 100])
def test_a_damaged_tail_is_cut_off_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int) -> None:
    put(CallsStore(tmp_path), "one", "two")
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    left = len(whole.splitlines(keepends=True)[-1]) - cut
    store = CallsStore(tmp_path)
    assert (store.get(ABC, 0), store.get(ABC, 1)) == (reply("one"), None)
    store.refresh()
    assert [message.partition(", left out")[0] for message in caplog.messages] == [
        f"{path}: the last {left} bytes are an unfinished line"
    ]
    put(store, "two again", first=1)
    assert CallsStore(tmp_path).get(ABC, 1) == reply("two again", 1)
    path.write_bytes(whole)
    store.refresh()
    assert len(store) == 2


DAMAGE = [(b"two", b"tw0"), (b'"id":"abc', b'"id":"abd'), (b'{"v":1', b"\x00\x00\x00\x00\x00\x00"), (b"}\n", b"\n\n")]


@pytest.mark.parametrize(("old", "new"), DAMAGE)
def test_a_damaged_line_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, old: bytes, new: bytes
) -> None:
    put(CallsStore(tmp_path), "one", "two", "three")
    (path,) = segments(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(old, new, 1)
    path.write_bytes(b"".join(lines))
    store = CallsStore(tmp_path)
    assert store.get(ABC, 1) is None
    assert store.get(ABC, 2) == reply("three", 2)
    assert caplog.messages[0].startswith(f"{path}, line 3: damaged")


def test_a_newer_format_is_not_paid_for_again(tmp_path: Path) -> None:
    put(CallsStore(tmp_path), "one")
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'{"v":1', b'{"v":2'))
    with pytest.raises(UserError, match="newer dsrl"):
        CallsStore(tmp_path).get(ABC, 0)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("")
    with pytest.raises(UserError, match="not a writable folder"):
        CallsStore(tmp_path / "calls").get(ABC, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_fails_the_stage_and_the_next_reply_goes_to_a_new_file(tmp_path: Path) -> None:
    store = CallsStore(tmp_path)
    put(store, "one")
    assert store._writer is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, store._writer._descriptor)
    os.close(full)
    with pytest.raises(StageFailed, match="could not be stored"):
        put(store, "two", first=1)
    put(store, "two", first=1)
    assert CallsStore(tmp_path).get(ABC, 1) == reply("two", 1)


def _write(folder: Path, name: str, count: int) -> None:
    store = CallsStore(folder)
    for i in range(count):
        put(store, f"{name} {i}", f"{name} {i} again", digest=f"{name}{i:031}")


def test_two_processes_write_and_a_third_sees_it_grow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = CallsStore(tmp_path)
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
    store = CallsStore(tmp_path)
    put(store, "parent")
    child = multiprocessing.get_context("fork").Process(target=lambda: put(store, "child", first=1))
    child.start()
    child.join()
    put(store, "parent again", first=2)
    assert len(segments(tmp_path)) == 2
    assert len(CallsStore(tmp_path)) == 3


def test_more_segments_than_open_files(tmp_path: Path) -> None:
    for i in range(70):
        store = CallsStore(tmp_path)
        put(store, str(i), first=i)
        store.close()
    store = CallsStore(tmp_path)
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
    assert _parts(_place(number, offset, length)) == (number, offset, length)
