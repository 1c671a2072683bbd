import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dsrl.core.errors import UserError
from dsrl.data.images import (
    Gallery,
    ImageStore,
    Pixels,
    UnlabelledImages,
    UnusableImage,
    chat_content,
    make_prompt,
    with_placeholders,
)
from dsrl.data.images.columns import flatten_cell, read_image
from dsrl.data.images.digest_cache import cached_digests
from dsrl.data.images.prompt import embed_images, resolve_numbered, strip_placeholders
from dsrl.data.model import Model
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.state import PipelineState
from dsrl.stages.seeds import Seeds
from tests.data.images.drawn import file, halves, opened
from tests.toys import context

SMALL = Pixels(min_pixels=1, max_pixels=10_000)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_CACHE", str(tmp_path / "cache"))


def test_a_picture_is_kept_once_by_its_content(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.put(file(halves()), SMALL)
    assert store.put(file(halves()), SMALL) == image
    assert (image.width, image.height) == (40, 20)
    assert store.path(image).read_bytes() == file(halves())
    assert base64.b64decode(store.data_url(image.digest).partition(",")[2]) == file(halves())
    assert store.put(file(halves()), Pixels(min_pixels=1, max_pixels=200)).width == 20


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        ("How many?", 0, "How many?"),
        ("How many?", 1, "<image>\nHow many?"),
        ("How many?", 2, "<image>\n<image>\nHow many?"),
        ("In <image>, how many?", 1, "In <image>, how many?"),
        ("In <image>, how many?", 2, None),
        ("What does <image> mean in HTML?", 0, "What does <image> mean in HTML?"),
    ],
)
def test_placeholders_are_as_many_as_pictures(text: str, count: int, found: str | None) -> None:
    assert with_placeholders(text, count) == found


def test_pictures_go_out_where_they_are_shown(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    one, other = store.put(file(halves()), SMALL), store.put(file(halves("L")), SMALL)
    said = chat_content(make_prompt("Look: <image> and <image>?", (one, other)))
    assert [part["type"] for part in said] == ["text", "image_url", "text", "image_url", "text"]
    assert file(halves()).hex() not in json.dumps(said)
    body = {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": said}]}
    sent = embed_images(body, store)["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in sent if part["type"] == "image_url"]
    assert [opened(base64.b64decode(url.partition("base64,")[2])).mode for url in urls] == ["RGB", "L"]
    assert embed_images({"messages": body["messages"][:1]}, None) == {"messages": body["messages"][:1]}


def data(folder: Path) -> None:
    (folder / "good.png").write_bytes(file(halves()))
    (folder / "other.png").write_bytes(file(halves("L")))
    (folder / "broken.png").write_bytes(file(halves())[:-30])


def encoded() -> str:
    return base64.b64encode(file(halves(size=(64, 64)), "JPEG", quality=95)).decode()


@pytest.mark.parametrize(
    "cell",
    [
        "good.png",
        {"bytes": None, "path": "good.png"},
        {"bytes": file(halves()), "path": None},
        file(halves()),
        encoded(),
        f"data:image/jpeg;base64,{encoded()}",
    ],
    ids=["path", "file of datasets", "bytes of datasets", "bytes", "base64", "data URL"],
)
def test_a_cell_holds_a_picture_in_many_ways(tmp_path: Path, cell: Any) -> None:
    data(tmp_path)
    (one,) = flatten_cell([cell])
    assert opened(read_image(one, tmp_path)).getpixel((2, 2)) is not None


@pytest.mark.parametrize(
    ("cell", "reason"), [("lost.png", "missing image"), (7, "no image"), ("?" * 300, "broken image")]
)
def test_a_cell_without_a_picture_says_so(tmp_path: Path, cell: Any, reason: str) -> None:
    with pytest.raises(UnusableImage) as refused:
        read_image(cell, tmp_path)
    assert refused.value.reason == reason


ROWS = [
    {"q": "How many halves?", "a": "2", "i": "good.png"},
    {"q": "How many halves?", "a": "2", "i": ["other.png"]},
    {"q": "How many halves?", "a": "2", "i": "good.png"},
    {"q": "How many halves?", "a": "2", "i": "lost.png"},
    {"q": "How many halves?", "a": "2", "i": "broken.png"},
    {"q": "How many halves?", "a": "2", "i": 7},
    {"q": "<image> or <image>?", "a": "2", "i": "good.png"},
    {"q": "Without a picture?", "a": "2", "i": None},
    {"q": "In the test?", "a": "2", "i": "good.png"},
    {"q": "In the test?", "a": "2", "i": "other.png"},
]


def source(folder: Path, rows: list[dict[str, Any]], name: str = "rows", **fields: Any) -> Source:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(**{"path": str(path), "input": "q", "output": "a", "images": "i", **fields})


def test_seeds_with_pictures_are_told_apart_by_them(tmp_path: Path) -> None:
    data(tmp_path)
    test = source(tmp_path, [{"q": "In the test?", "a": "2", "i": "good.png"}], "test")
    task = Task(name="t", instruction="Count.", answer=Number(), test=test, pixels=SMALL)
    where = context(tmp_path)
    found = Seeds(source=source(tmp_path, ROWS))(PipelineState(task=task, base=Model(name="m")), where)
    where.close()
    assert [(one.input, [image.width for image in one.images]) for one in found.samples] == [
        ("<image>\nHow many halves?", [40]),
        ("<image>\nHow many halves?", [40]),
        ("Without a picture?", []),
        ("<image>\nIn the test?", [40]),
    ]
    assert len({one.id for one in found.samples}) == 4
    assert [(one.reason, one.provenance.index) for one in found.rejected] == [
        ("duplicate", 2),
        ("missing image", 3),
        ("broken image", 4),
        ("no image", 5),
        ("placeholders", 6),
        ("a test item", 8),
    ]
    assert "lost.png" in found.rejected[1].detail


def test_missing_files_are_told_before_work(tmp_path: Path) -> None:
    data(tmp_path)
    with pytest.raises(UserError, match=r"1 of 2 image files are missing"):
        source(tmp_path, [ROWS[0], ROWS[3]]).check_images()


def test_items_of_a_test_set_are_refused_by_row(tmp_path: Path) -> None:
    data(tmp_path)
    gallery = Gallery(ImageStore(tmp_path / "images"), SMALL)
    with pytest.raises(UserError, match=r"1 of 2 rows have images that can't be used[\s\S]*broken image"):
        source(tmp_path, [ROWS[0], ROWS[4]]).load(Number(), gallery)
    (item,) = source(tmp_path, ROWS[:1]).load(Number(), gallery)
    assert item.images[0].width == 40


def test_a_changed_picture_changes_the_data(tmp_path: Path) -> None:
    data(tmp_path)
    rows = source(tmp_path, ROWS[:1])
    before = rows.fingerprint()
    assert rows.fingerprint() == before
    (tmp_path / "good.png").write_bytes(file(halves("L")))
    assert rows.fingerprint() != before


def test_files_are_read_again_only_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path)
    paths = sorted(tmp_path.glob("*.png"))
    first = cached_digests(paths)
    monkeypatch.setattr("dsrl.data.images.digest_cache.file_digest", lambda path: "read again")
    assert cached_digests(paths) == first
    (tmp_path / "good.png").write_bytes(file(halves("CMYK"), "TIFF"))
    assert cached_digests(paths) == [first[0], "read again", first[2]]
    assert cached_digests([tmp_path / "none.png"]) == ["missing"]


def test_the_size_of_images_is_in_the_key(tmp_path: Path) -> None:
    shown = Task(name="t", instruction="Count.", answer=Number(), test=source(tmp_path, ROWS[:1]))
    assert shown.format()["pixels"]["max_pixels"] == 1_003_520


def test_a_folder_of_pictures_is_a_pool(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    data(tmp_path / "below")
    pool = UnlabelledImages(path=str(tmp_path / "below"))
    before = pool.key_fields()
    found = pool.images(Gallery(ImageStore(tmp_path / "images"), SMALL))
    assert [one.reason if isinstance(one, UnusableImage) else one.width for one in found] == ["broken image", 40, 40]
    (tmp_path / "below" / "new.JPG").write_bytes(file(halves(), "JPEG"))
    assert pool.key_fields() != before
    with pytest.raises(UserError, match=r"task.pictures: no image"):
        UnlabelledImages(path=str(tmp_path / "images" / "made")).check()


def test_a_column_of_a_table_is_a_pool(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"image": "good.png"}\n{"image": ["other.png", "good.png"]}\n')
    found = UnlabelledImages(path=str(tmp_path / "rows.jsonl"), limit=2).images(
        Gallery(ImageStore(tmp_path / "images"), SMALL)
    )
    assert [one.width for one in found if not isinstance(one, UnusableImage)] == [40, 40]


@pytest.mark.parametrize(
    ("text", "count", "found"),
    [
        ("See <image1> and <image 2>.", 2, "See <image> and <image>."),
        ("See <image1> and <image2>.", 1, "See <image> and ."),
        ("See <image1>.", 2, "See <image>."),
        ("See <image>, not <image1>.", 1, "See <image>, not <image1>."),
        ("Nothing.", 1, "Nothing."),
    ],
)
def test_numbered_placeholders_are_placeholders(text: str, count: int, found: str) -> None:
    assert resolve_numbered(text, count) == found


def test_a_question_without_its_pictures_is_its_words() -> None:
    assert strip_placeholders("<image>\n<image>\nHow many, <image> or not?") == "How many,  or not?"
