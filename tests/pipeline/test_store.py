import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.pipeline.store import FORMAT, MANIFEST, Manifest, Store, damage
from tests.command import ENVIRONMENT

STAGE, KEY = "bake", "00ff"


def manifest(**fields: Any) -> Manifest:
    described = {"parts": {}, "parents": {}, "figures": {}, "rows": {}, "calls": {}, "seconds": 0.1, "created": 1.0}
    return Manifest(**{"stage": STAGE, "key": KEY, **described, **fields})


def bake(scratch: Path) -> Manifest:
    (scratch / "cake.txt").write_text("sweet")
    (scratch / "box").mkdir()
    (scratch / "box" / "lid.txt").write_text("round")
    return manifest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.open()
    return store


def test_a_result_is_made_once_and_then_found(store: Store) -> None:
    made, reused = store.get_or_create(STAGE, KEY, bake)
    assert not reused
    found, reused = store.get_or_create(STAGE, KEY, lambda scratch: pytest.fail("made twice"))
    assert reused
    assert found.manifest == made.manifest
    assert sorted(found.manifest.files) == ["box/lid.txt", "cake.txt"]
    assert (found.folder / "box" / "lid.txt").read_text() == "round"


def test_a_failure_leaves_no_entry_and_the_next_try_starts_empty(store: Store) -> None:
    def burn(scratch: Path) -> Manifest:
        (scratch / "smoke.txt").write_text("black")
        raise RuntimeError("burnt")

    with pytest.raises(RuntimeError, match="burnt"):
        store.get_or_create(STAGE, KEY, burn)
    assert store.find(STAGE, KEY) is None
    assert store.entries() == []
    entry, _ = store.get_or_create(STAGE, KEY, bake)
    assert not (entry.folder / "smoke.txt").exists()


def test_readers_see_a_whole_entry_or_none(store: Store) -> None:
    """While an entry is being made again and again, another thread never finds a part of one."""
    seen: list[str | None] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            reader = Store(store.root)
            entry = reader.find(STAGE, f"{len(seen) % 20:02}")
            seen.append(entry and damage(entry))
            seen.extend(reader.corrupt)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(20):
        key = f"{number:02}"
        store.get_or_create(STAGE, key, lambda scratch, key=key: bake(scratch) and manifest(key=key))
    over.set()
    watcher.join()
    assert set(seen) <= {None}


def remove(folder: Path) -> None:
    (folder / "cake.txt").unlink()


def change(folder: Path) -> None:
    (folder / "cake.txt").write_text("sweat")


def lengthen(folder: Path) -> None:
    (folder / "box" / "lid.txt").write_text("round and round")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove, "cake.txt is missing"),
        (change, "the content of cake.txt has changed"),
        (lengthen, "box/lid.txt has 15 bytes instead of 5"),
        *[
            (lambda folder, text=text: (folder / MANIFEST).write_text(text), "can't be read")
            for text in ("", "{", "[]", "{}", '{"format": 1}', '{"format": 99}', "\x00")
        ],
    ],
)
def test_a_damaged_entry_is_set_aside_said_and_made_again(
    store: Store, harm: Callable[[Path], object], words: str
) -> None:
    entry, _ = store.get_or_create(STAGE, KEY, bake)
    harm(entry.folder)
    again, reused = store.get_or_create(STAGE, KEY, bake)
    assert not reused
    assert damage(again) is None
    (said,) = store.corrupt
    assert f"{STAGE}/{KEY} is damaged" in said
    assert words in said
    aside = [path.name for path in again.folder.parent.iterdir() if path.name.startswith(".damaged")]
    assert len(aside) == 1
    assert aside[0] in said


def test_an_unreadable_manifest_hides_no_other_entry(store: Store) -> None:
    store.get_or_create(STAGE, KEY, bake)
    other, _ = store.get_or_create(STAGE, "01", lambda scratch: bake(scratch) and manifest(key="01"))
    (other.folder / MANIFEST).write_text("{")
    assert [entry.manifest.key for entry in store.entries()] == [KEY]


def test_entries_come_oldest_first_and_by_stage(store: Store) -> None:
    for stage, key, created in (("ice", "b", 3.0), ("bake", "c", 1.0), ("bake", "a", 2.0)):
        store.get_or_create(
            stage, key, lambda scratch, s=stage, k=key, c=created: bake(scratch) and manifest(stage=s, key=k, created=c)
        )
    assert [entry.manifest.key for entry in store.entries()] == ["c", "a", "b"]
    assert [entry.manifest.key for entry in store.entries("bake")] == ["c", "a"]


def test_work_outlives_a_failure_and_goes_once_the_entry_is_made(store: Store) -> None:
    (store.checkpoint_dir(STAGE, KEY) / "checkpoint").write_text("half")
    assert (store.checkpoint_dir(STAGE, KEY) / "checkpoint").read_text() == "half"
    store.get_or_create(STAGE, KEY, bake)
    assert list(store.checkpoint_dir(STAGE, KEY).iterdir()) == []


WORKER = """
import os, sys, time
from pathlib import Path
from dsrl.pipeline.store import Manifest, Store

root, mode = Path(sys.argv[1]), sys.argv[2]

def make(scratch):
    with open(root / "log", "a") as log:
        log.write(mode + "\\n")
    (scratch / "cake.txt").write_text("sweet")
    while mode == "slow" and not (root / "go").exists():
        time.sleep(0.01)
    if mode == "killed":
        os.kill(os.getpid(), 9)
    return Manifest("bake", "00ff", {}, {}, {}, {}, {}, 0.1, 1.0)

store = Store(root)
store.open()
print("ready", flush=True)
entry, reused = store.get_or_create("bake", "00ff", make)
print((entry.folder / "cake.txt").read_text(), reused)
"""


def worker(root: Path, mode: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORKER, str(root), mode]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


def test_of_two_processes_that_want_one_key_only_one_computes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = worker(tmp_path, "slow")
    wait_for(log.exists)
    second = worker(tmp_path, "quick")
    (tmp_path / "go").touch()
    assert first.communicate()[0] == "sweet False\n"
    assert second.communicate()[0] == "sweet True\n"
    assert log.read_text() == "slow\n"


def test_the_remains_of_a_killed_process_are_in_nobodys_way(tmp_path: Path) -> None:
    killed = worker(tmp_path, "killed")
    killed.communicate()
    assert killed.returncode == -9
    assert Store(tmp_path).find(STAGE, KEY) is None
    assert worker(tmp_path, "quick").communicate()[0] == "sweet False\n"
    assert [path.name for path in (tmp_path / "stages" / STAGE).iterdir() if path.is_dir()] == [KEY]


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/store"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't write") as caught:
        Store(tmp_path / place).open()
    assert "store=FOLDER" in str(caught.value)


def test_a_manifest_is_plain_json_for_other_programs(store: Store) -> None:
    entry, _ = store.get_or_create(STAGE, KEY, bake)
    values = json.loads((entry.folder / MANIFEST).read_text())
    assert values["files"]["cake.txt"]["size"] == 5
    assert (values["stage"], values["key"], values["format"]) == (STAGE, KEY, FORMAT)


def test_a_wait_for_the_process_that_makes_an_entry_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dsrl.pipeline.store.LOCK_WARNING_SECONDS", 0.05)
    held, done, said = threading.Event(), threading.Event(), []

    class Hearer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())
            done.set()

    def hold() -> None:
        with store.lock(STAGE, KEY):
            held.set()
            done.wait()

    holder, hearer = threading.Thread(target=hold, daemon=True), Hearer()
    logging.getLogger("dsrl.pipeline.store").addHandler(hearer)
    try:
        holder.start()
        held.wait()
        with caplog.at_level(logging.WARNING, "dsrl.pipeline.store"), store.lock(STAGE, KEY) as waited:
            assert waited
    finally:
        logging.getLogger("dsrl.pipeline.store").removeHandler(hearer)
        done.set()
    holder.join()
    assert f"shares {store.root} is making {STAGE}" in said[0]
