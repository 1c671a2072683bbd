import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsrl.core.parquet import read_table
from dsrl.data.images import ImageStore, Pixels
from dsrl.data.sample import Sample
from dsrl.main import run_command
from dsrl.pipeline.store import Store
from tests import pictured

Say = Callable[..., str]
GENERATE = ("experiment=quickstart", "n=6", "votes=3", "tracking.enabled=false", "stop_after=generate")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs up to `generate`, of which the second asks for more and opens the passages anew."""
    folder = tmp_path_factory.mktemp("verbs")
    before = os.getcwd(), sys.argv
    os.chdir(folder)
    try:
        for number, changed in enumerate(([], ["n=8", "generate.temperature=0.9"])):
            words = [*GENERATE, *changed, f"store={folder / 'store'}", f"hydra.run.dir=run{number}"]
            sys.argv = ["dsrl", *words]
            assert run_command(words) == 0
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    return folder / "store"


@pytest.fixture
def say(store: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """What `dsrl VERB ... store=...` prints."""

    def said(*words: str) -> str:
        assert run_command([words[0], f"store={store}", *words[1:]]) == 0
        return capsys.readouterr().out

    return said


def generated(store: Path) -> tuple[Sample, ...]:
    entry = Store(store).entries("generate")[0]
    return read_table(entry.folder / "samples.parquet", Sample)


def test_ls_shows_every_entry_with_rows_and_requests(say: Say, store: Path) -> None:
    lines = say("ls").splitlines()
    assert len(lines) == len(Store(store).entries()) == 4
    assert re.search(r"^generate +[0-9a-f]{20} .* -> 6 .* requests$", say("ls", "generate"), re.MULTILINE)


def test_why_names_the_parts_of_the_key_that_changed(say: Say) -> None:
    text = say("why", "generate")
    assert "stage.n: 6 -> 8" in text
    assert "stage.temperature: 0.7 -> 0.9" in text
    assert "passages <- retrieve: stage.num_passages: 6 -> 8" in text
    assert "votes" not in text


def test_why_has_nothing_to_say_of_a_single_result(say: Say, store: Path) -> None:
    first = Store(store).entries("generate")[0]
    single = store.parent / "single"
    shutil.copytree(first.folder, single / "stages" / "generate" / first.manifest.key)
    assert "nothing to compare" in say("why", "generate", f"store={single}")


def test_a_stage_of_the_pipeline_is_found_under_the_name_it_has_in_the_store(say: Say) -> None:
    assert say("why", "generate_more").splitlines()[1:] == say("why", "generate").splitlines()[1:]


def test_trace_leads_from_a_sample_to_its_passage_prompt_and_votes(say: Say, store: Path) -> None:
    sample = generated(store)[2]
    text = say("trace", sample.id)
    for piece in (
        sample.input,
        f"answer    {sample.answer}",
        "initial, generation 0",
        "passage   ",
        "# What to do",
        '{"input"',
        "--- reply 0",
        f"#### {sample.answer}",
    ):
        assert piece in text, piece
    assert "(not in this store)" not in text


@pytest.mark.parametrize("policy", ["drop", "flag"])
def test_trace_says_which_test_item_a_sample_gives_away(
    policy: str, say: Say, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, folder = generated(store)[2], store.parent / policy
    shutil.copytree(store, folder / "store")
    (folder / "test.jsonl").write_text(json.dumps({"question": sample.input, "answer": "1"}) + "\n")
    monkeypatch.chdir(folder)
    later = ("select", "diversity", "train", "evaluate_base", "evaluate_trained", "compare", "report")
    changed = ["task.test.path=test.jsonl", f"task.contamination.policy={policy}", "store=store", "hydra.run.dir=run"]
    words = [*GENERATE[:-1], *changed, *(f"~pipeline.{name}" for name in ("probe", "rewrite", "score", *later))]
    monkeypatch.setattr(sys, "argv", ["dsrl", *words])
    assert run_command(words) == 0
    text = say("trace", sample.id, f"store={folder / 'store'}")
    assert f"shares    with item 0 of test (same, 1.00): {sample.input.rstrip('?')}" in text


def test_trace_of_an_unknown_sample_says_where_ids_stand(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["trace", "ffff", f"store={store}"]) == 2
    assert "no sample ffff" in capsys.readouterr().err


def test_gc_spares_what_was_used_lately_and_asks_before_it_removes(say: Say, store: Path) -> None:
    entries = Store(store).entries()
    assert "would remove 0 entries" in say("gc")
    old = entries[0].folder / "manifest.json"
    os.utime(old, (1.0, 1.0))
    (entries[1].folder.parent / ".making-0123").mkdir()
    text = say("gc", "days=1")
    assert "would remove 1 entries and 1 unfinished folders" in text
    assert entries[0].manifest.key in text
    assert old.exists()
    assert "removed 1 entries and 1 unfinished folders" in say("gc", "days=1", "yes=true")
    assert not old.exists()
    assert len(Store(store).entries()) == len(entries) - 1
    assert list((store / "calls").glob("*.jsonl")), "paid replies stay"
    assert re.search(r"^calls +1 files, .* -> 1 files, .* 0 duplicates and 0 damaged lines$", say("gc"), re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gc", "days=soon"], "days: not a number"),
        (["ls", "a", "b"], "too many words"),
        (["trace"], "dsrl trace ID"),
        (["why"], "generate, retrieve"),
        (["why", "nope"], "generate, retrieve"),
        (["ls", "train"], "no results of such a stage"),
        (["gc", "yes=maybe"], "yes"),
    ],
)
def test_a_mistake_is_named(words: list[str], said: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*words, f"store={store}"]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_manifest_stops_no_verb(say: Say, store: Path) -> None:
    broken = store / "stages" / "generate" / "0000" / "manifest.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert "generate" in say("ls")
    assert "stage.n" in say("why", "generate") or "nothing to compare" in say("why", "generate")
    assert json.loads(next((store / "stages" / "generate").glob("[0-9a-f]*/values.json")).read_text()) == {}


def test_trace_names_the_pictures_of_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, state = pictured.stored_run(tmp_path)
    sample = state.samples[2]
    images = tmp_path / "store" / "images"
    (images / sample.images[1].path).unlink()
    assert run_command(["trace", sample.id, f"store={tmp_path / 'store'}"]) == 0
    said = capsys.readouterr().out
    assert f"image 1   {images / sample.images[0].path} (96 x 64)" in said
    assert f"image 2   {images / sample.images[1].path} (96 x 64, missing)" in said
    assert f"child     {state.samples[5].id} (harder)" in said


def test_gc_removes_pictures_that_no_kept_entry_refers_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, state = pictured.stored_run(tmp_path)
    store = tmp_path / "store"
    pictures = ImageStore(store / "images")
    kept = {image.path for sample in state.samples for image in sample.images}
    idle, fresh = (pictures.put(pictured.shapes(number), Pixels(min_pixels=1)) for number in (7, 8))
    (half := pictures.path(idle).with_suffix(".png.12.ab")).write_bytes(b"half of it")
    for path in [path for path in (store / "images").rglob("*") if path != pictures.path(fresh)]:
        os.utime(path, (1.0, 1.0))
    size = pictures.path(idle).stat().st_size + half.stat().st_size

    def gc(*words: str) -> str:
        assert run_command(["gc", f"store={store}", *words]) == 0
        return capsys.readouterr().out

    words = f"2 images that no kept entry refers to, {size / 1e6:.1f} MB"
    assert f"would remove {words}" in gc()
    assert pictures.path(idle).is_file()
    assert f"removed {words}" in gc("yes=true")
    left = {f"{path.parent.name}/{path.name}" for path in (store / "images").glob("[0-9a-f][0-9a-f]/*")}
    assert left == {*kept, fresh.path}
    assert len(list((store / "images" / "made").iterdir())) == len(left)
    assert pictures.put(pictured.shapes(7), Pixels(min_pixels=1)) == idle, "made anew"
    (entry,) = Store(store).entries("rewrite")
    os.utime(entry.folder / "manifest.json", (1.0, 1.0))
    assert f"would remove {len(kept)} images" in gc()
