import dataclasses
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dsrl.core.errors import StageFailed, UserError
from dsrl.core.parquet import read_table, write_table
from dsrl.data.images import Pixels
from dsrl.data.sample import Image, Sample, new_sample
from dsrl.data.source import Source
from dsrl.data.task import Contamination, Task
from dsrl.graders import Number
from dsrl.pipeline.context import Context
from dsrl.pipeline.runner import run_stages
from dsrl.pipeline.state import PipelineState
from dsrl.stages.decontaminate import Decontaminate
from tests import toys
from tests.data.images.images import encode, two_colours

ITEMS = (
    "A baker in Ulm sells 12 plaited loaves before noon and twice as many after it; how many loaves are gone by night?",
    "Three divers each bring up 7 cracked amphorae from the wreck near Syme; how many amphorae stand on the deck then?",
    "How many moons circle Mars today?",
)
RENAMED = (
    "A baker in Bern sells 31 plaited loaves before noon and twice as many after it; how many loaves are gone by night?"
)
CLEAN = ("Tom has 4 hats and buys 2. How many hats?", "What is 9 times 9?")


def source(folder: Path, name: str = "test", items: tuple[str, ...] = ITEMS) -> Source:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"Input": item, "Output": "1"}) + "\n" for item in items))
    return Source(path=str(path))


def make_state(folder: Path, *texts: str, **task: Any) -> PipelineState:
    values = {"name": "sums", "instruction": "Add.", "answer": Number(), "test": source(folder), **task}
    samples = (new_sample("sums", text, "1", "initial") for text in texts)
    return PipelineState(task=Task(**values), samples=tuple(samples))


def stage(**values: Any) -> Decontaminate:
    return Decontaminate(contamination=Contamination(**values))


def test_drop_rejects_matches_with_their_shared_words(tmp_path: Path, context: Context) -> None:
    state = stage()(make_state(tmp_path, CLEAN[0], ITEMS[0].upper(), RENAMED, CLEAN[1]), context)
    assert tuple(sample.input for sample in state.samples) == CLEAN
    assert [(row.reason, row.matches[0].kind, row.matches[0].item) for row in state.rejected] == [
        ("the same as a test item", "same", 0),
        ("13 words of a test item", "run", 0),
    ]
    shared = "plaited loaves before noon and twice as many after it; how many loaves are gone by night"
    assert state.rejected[1].matches[0].text == shared
    assert state.rejected[1].detail == f"item 0 of test: {shared}"
    assert state.figures == {
        "policy": "drop", "samples": 4, "matched": 2, "dropped": 2, "items": 1, "kinds": {"same": 1, "run": 1},
        "silent": {}, "rows": {"in": 4, "out": 2},
    }  # fmt: skip
    assert "WARNING decontaminate: 2 of 4 samples" in toys.said(context)


def test_equal_words_about_another_image_do_not_match(tmp_path: Path, context: Context) -> None:
    state = make_state(tmp_path, CLEAN[0], ITEMS[0])
    image = Image(digest="d", path="d.png", width=1, height=1)
    shown = state.add(samples=tuple(sample.replace(images=(image,)) for sample in state.samples))
    assert stage()(shown, context).figures["matched"] == 0


def noisy(image: PIL.Image.Image) -> bytes:
    """The image as a JPEG of low quality."""
    return encode(image, "JPEG", quality=40)


def test_test_images_in_other_encodings_are_found(tmp_path: Path, context: Context) -> None:
    """The same question about the item's image, re-encoded or rescaled, matches; about another image it does not."""
    item, other = two_colours(size=(400, 200)), two_colours(size=(400, 200)).rotate(180)
    (tmp_path / "item.png").write_bytes(encode(item))
    path = tmp_path / "visual.jsonl"
    path.write_text(json.dumps({"Input": "How many colours?", "Output": "2", "image": "item.png"}) + "\n")
    test = Source(path=str(path), images="image")
    task = Task(name="sums", instruction="Add.", answer=Number(), test=test, pixels=Pixels(min_pixels=1))
    gallery = context.gallery(task)
    versions = [encode(item, "TIFF"), noisy(item), encode(item.resize((300, 150))), encode(other), noisy(other)]
    images = [gallery.put(data) for data in versions]
    assert len({image.digest for image in images}) == len(images)
    samples = [new_sample("sums", "How many colours?\n<image>", "2", "initial", images=[image]) for image in images]
    state = stage(policy="flag")(PipelineState(task=task, samples=tuple(samples)), context)
    assert [len(sample.matches) for sample in state.samples] == [1, 1, 1, 0, 0]


def test_few_matches_are_no_warning(tmp_path: Path, context: Context) -> None:
    stage()(make_state(tmp_path, ITEMS[0], *(f"Number {number}?" for number in range(20))), context)
    assert toys.said(context).startswith("decontaminate: 1 of 21 samples")


def test_flag_keeps_matches_and_warns(tmp_path: Path, context: Context) -> None:
    state = stage(policy="flag")(make_state(tmp_path, CLEAN[0], ITEMS[1]), context)
    assert [len(sample.matches) for sample in state.samples] == [0, 1]
    assert state.samples[1].matches[0].text == ITEMS[1].rstrip("?")
    assert (state.rejected, state.figures["dropped"], state.figures["matched"]) == ((), 0, 1)
    assert "WARNING decontaminate: 1 of 2 samples" in toys.said(context)
    write_table(tmp_path / "s.parquet", state.samples, Sample)
    assert read_table(tmp_path / "s.parquet", Sample) == state.samples


def test_keep_skips_the_check(tmp_path: Path, context: Context) -> None:
    kept = stage(policy="keep")
    state = kept(make_state(tmp_path, *ITEMS), context)
    assert len(state.samples) == len(ITEMS)
    assert state.figures["matched"] == 0
    assert (kept.inputs, stage().inputs) == (("samples",), ("samples", "test"))


def test_without_a_test_set_nothing_matches(tmp_path: Path, context: Context) -> None:
    state = stage()(make_state(tmp_path, *ITEMS, test=None), context)
    assert state.figures["rows"] == {"in": 3, "out": 3}
    assert toys.said(context) == ""


def test_dropping_every_sample_fails_with_the_reason(tmp_path: Path, context: Context) -> None:
    with pytest.raises(StageFailed, match=r"all 2 samples.*\n.*the same as a test item: item 0 of test"):
        stage()(make_state(tmp_path, *ITEMS[:2]), context)


def test_further_sets_are_compared(tmp_path: Path, context: Context) -> None:
    other = source(tmp_path, "other", (CLEAN[0],))
    state = stage(also=[other])(make_state(tmp_path, *CLEAN, ITEMS[2]), context)
    assert [(row.matches[0].source, row.matches[0].item) for row in state.rejected] == [(other.path, 0), ("test", 2)]
    assert Contamination(also=[{"path": other.path}]).also == (other,)  # type: ignore[list-item]


def test_content_of_further_sets_is_in_the_key(tmp_path: Path) -> None:
    parents = {"samples": "s", "test": "t"}
    before = stage(also=[source(tmp_path, "other", CLEAN[:1])])
    assert before.key(parents) != stage().key(parents)
    old = before.key(parents)
    assert stage(also=[source(tmp_path, "other", CLEAN[:1])]).key(parents) == old
    assert stage(also=[source(tmp_path, "other", CLEAN)]).key(parents) != old


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"policy": "ignore"}, "policy"),
        ({"ngrams": [13, 1]}, "task.contamination.ngrams"),
        ({"ngrams": [8, 8]}, "task.contamination.ngrams"),
        ({"renamed": 1.5}, "renamed"),
        ({"also": [{"path": ""}]}, "task.contamination.also"),
        ({"also": [{"paht": "x"}]}, "paht"),
        ({"also": "test.jsonl"}, "task.contamination.also"),
    ],
)
def test_invalid_settings_are_rejected(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Contamination(**values)


def test_missing_further_set_is_reported_by_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl"):
        Contamination(also=[Source(path=str(tmp_path / "none.jsonl"))]).check()
    Contamination(policy="keep", also=[Source(path=str(tmp_path / "none.jsonl"))]).check()


def test_another_test_set_reuses_the_paid_stages(tmp_path: Path) -> None:
    """Paid stages run once; the check and what follows run again."""

    def go(items: tuple[str, ...]) -> tuple[PipelineState, list[str]]:
        toys.made.clear()
        state = toys.state(tmp_path, test=source(tmp_path, items=items))
        pipeline = {"fetch": toys.Fetch(), "write": toys.Write(), "decontaminate": stage()}
        return run_stages(pipeline, state, toys.context(tmp_path)), list(toys.made)

    first, made = go(ITEMS)
    assert (len(first.samples), made) == (4, ["fetch", "write"])
    second, made = go((*ITEMS, "2 + 1?"))
    assert (len(second.samples), made) == (3, [])
    third, _ = go((*ITEMS, "2 + 1?"))
    assert third.samples == second.samples
    assert third.rejected[-1] == dataclasses.replace(second.rejected[-1])
