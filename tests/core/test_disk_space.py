import errno
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from dsrl.core.component import component
from dsrl.core.disk_space import check_room, refusal
from dsrl.core.errors import StageFailed, UserError
from dsrl.data.model import Reply, Usage
from dsrl.llm.ledger.spending import Spending
from dsrl.llm.reply_cache.cache import ReplyCache
from dsrl.pipeline import run_folder
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.state import PipelineState
from tests import toys
from tests.forecast.small_run import make_context, pipeline, run_pipeline

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@component("tests.test_disk_space.Full")
class Full(toys.Write):
    """Its table can't be written: the disk is full."""

    file: ClassVar[str] = "samples.parquet"

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        (context.scratch / self.file).symlink_to("/dev/full")
        return super().__call__(state, context)


@component("tests.test_disk_space.FullInside")
class FullInside(toys.Write):
    """It writes a file of its own, to a full disk."""

    def __call__(self, state: PipelineState, context: Context) -> PipelineState:
        (context.scratch / "notes.txt").symlink_to("/dev/full")
        (context.scratch / "notes.txt").write_text("x" * 100_000)
        return super().__call__(state, context)


@needs_full_device
@pytest.mark.parametrize("stage", [Full(), FullInside()])
def test_a_disk_that_is_full_fails_the_stage_with_folder_and_room(stage: toys.Write, tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as caught:
        run_stages({"fetch": toys.Fetch(), "write": stage}, toys.state(tmp_path), toys.context(tmp_path))
    said = str(caught.value)
    assert said.startswith("write failed\n")
    for words in ("No space left on device", " MB free in ", str(tmp_path / "store"), "same command"):
        assert words in said
    assert "None" not in said
    assert run_stages(
        {"fetch": toys.Fetch(), "write": toys.Write()}, toys.state(tmp_path), toys.context(tmp_path)
    ).samples


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EACCES, "Permission denied", "/a/file"), ["Permission denied: /a/file", "store=FOLDER"]),
        (OSError("can't load a tokenizer"), ["can't load a tokenizer", "run the same command"]),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/b"), ["No such file or directory: /b"]),
    ],
)
def test_other_refusals_are_told_by_their_own_words(error: OSError, words: list[str]) -> None:
    said = str(refusal(error, "the run"))
    assert "None" not in said
    for word in words:
        assert word in said


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Disk(1 << 40, 0, free))


def test_a_run_that_will_pay_needs_room_for_what_it_buys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = pipeline(n=4)
    with_free(monkeypatch, 1 << 20)
    with pytest.raises(UserError, match=r"too little disk space.*\n.*1\.0 MB free"):
        run_pipeline(stages, make_context(tmp_path))
    with_free(monkeypatch, 1 << 40)
    run_pipeline(stages, make_context(tmp_path))
    with_free(monkeypatch, 1 << 20)
    run_pipeline(stages, toys.context(tmp_path))  # everything is in the store


def test_room_is_looked_for_where_a_folder_will_be(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "yet")


USAGE = Usage(input_tokens=100, output_tokens=50)


def spent(folder: Path) -> Context:
    where = toys.context(folder)
    came = Spending(requests=2, completions=2, input_tokens=200, output_tokens=100)
    where.ledger.add(("write", "teacher", "t"), came)
    return where


def test_what_could_not_be_stored_is_said_and_counted(tmp_path: Path) -> None:
    where = spent(tmp_path)
    run_folder.print_spending(where)
    assert "every received reply is kept in" in toys.said(where)
    where = spent(tmp_path)
    where.reply_cache.unstored.append(USAGE)
    run_folder.print_spending(where)
    assert "1 of 2 received replies could not be stored (100 input and 50 output tokens)" in toys.said(where)
    assert "every reply" not in toys.said(where)


def test_a_store_counts_what_the_disk_does_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ReplyCache(tmp_path / "calls")
    reply = Reply(text="a", usage=USAGE)
    store.put("1" * 32, {}, {0: reply}, "m")
    assert store.unstored == []

    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dsrl.llm.reply_cache.segments.os.write", full)
    for digest in ("2" * 32, "3" * 32):
        with pytest.raises(StageFailed):
            store.put(digest, {}, {0: reply}, "m")
    monkeypatch.undo()
    assert store.unstored == [USAGE, USAGE]
    store.close()


def test_a_failed_run_says_its_own_error_even_if_metrics_can_not_be_written(tmp_path: Path) -> None:
    where = spent(tmp_path)
    where.run_dir.rmdir()
    where.run_dir.write_text("a file")
    assert run_folder.end(where, "failed") == "failed"
    assert "WARNING metrics.json can't be written" in toys.said(where)
    with pytest.raises(StageFailed, match=r"writing metrics\.json"):
        run_folder.end(where, "finished")
