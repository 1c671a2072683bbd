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
from dsrl.data.images.columns import flatten_cell, image_file_digests, read_image
from dsrl.data.images.prompt import embed_images, resolve_numbered, strip_placeholders
from dsrl.data.model import Model
from dsrl.data.source import Source
from dsrl.data.task import Task
from dsrl.graders import Number
from dsrl.pipeline.state import PipelineState
from dsrl.stages.seeds import Seeds
from tests.data.images.images import decode, encode, two_colours
from tests.toys import context

SMALL = Pixels(min_pixels=1, max_pixels=10_000)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSRL_CACHE", str(tmp_path / "cache"))


def test_image_is_stored_once_by_content(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.put(encode(two_colours()), SMALL)
    assert store.put(encode(two_colours()), SMALL) == image
    assert (image.width, image.height) == (40, 20)
    assert store.path(image).read_bytes() == encode(two_colours())
    assert base64.b64decode(store.data_url(image.digest).partition(",")[2]) == encode(two_colours())
    assert store.put(encode(two_colours()), Pixels(min_pixels=1, max_pixels=200)).width == 20


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
def test_with_placeholders(text: str, count: int, found: str | None) -> None:
    assert with_placeholders(text, count) == found


def test_images_are_embedded_where_the_prompt_shows_them(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    one, other = store.put(encode(two_colours()), SMALL), store.put(encode(two_colours("L")), SMALL)
    parts = chat_content(make_prompt("Look: <image> and <image>?", (one, other)))
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    assert encode(two_colours()).hex() not in json.dumps(parts)
    body = {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": parts}]}
    sent = embed_images(body, store)["messages"][1]["content"]
    urls = [part["image_url"]["url"] for part in sent if part["type"] == "image_url"]
    assert [decode(base64.b64decode(url.partition("base64,")[2])).mode for url in urls] == ["RGB", "L"]
    assert embed_images({"messages": body["messages"][:1]}, None) == {"messages": body["messages"][:1]}


def write_images(folder: Path) -> None:
    (folder / "good.png").write_bytes(encode(two_colours()))
    (folder / "other.png").write_bytes(encode(two_colours("L")))
    (folder / "broken.png").write_bytes(encode(two_colours())[:-30])


def base64_jpeg() -> str:
    return base64.b64encode(encode(two_colours(size=(64, 64)), "JPEG", quality=95)).decode()


@pytest.mark.parametrize(
    "cell",
    [
        "good.png",
        {"bytes": None, "path": "good.png"},
        {"bytes": encode(two_colours()), "path": None},
        encode(two_colours()),
        base64_jpeg(),
        f"data:image/jpeg;base64,{base64_jpeg()}",
    ],
    ids=["path", "datasets path", "datasets bytes", "bytes", "base64", "data URL"],
)
def test_cell_formats(tmp_path: Path, cell: Any) -> None:
    write_images(tmp_path)
    (one,) = flatten_cell([cell])
    assert decode(read_image(one, tmp_path)).getpixel((2, 2)) is not None


@pytest.mark.parametrize(
    ("cell", "reason"), [("lost.png", "missing image"), (7, "no image"), ("?" * 300, "broken image")]
)
def test_unreadable_cells_have_a_reason(tmp_path: Path, cell: Any, reason: str) -> None:
    with pytest.raises(UnusableImage) as caught:
        read_image(cell, tmp_path)
    assert caught.value.reason == reason


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


def test_seeds_with_different_images_are_distinct(tmp_path: Path) -> None:
    write_images(tmp_path)
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


def test_missing_image_files_are_reported_before_the_run(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(UserError, match="1 of 2 image files"):
        source(tmp_path, [ROWS[0], ROWS[3]]).check_images()


def test_unusable_test_images_are_reported_by_row(tmp_path: Path) -> None:
    write_images(tmp_path)
    gallery = Gallery(ImageStore(tmp_path / "images"), SMALL)
    with pytest.raises(UserError, match=r"1 of 2 rows(.|\n)*broken image"):
        source(tmp_path, [ROWS[0], ROWS[4]]).load(Number(), gallery)
    (item,) = source(tmp_path, ROWS[:1]).load(Number(), gallery)
    assert item.images[0].width == 40


def test_fingerprint_depends_on_image_content(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = source(tmp_path, ROWS[:1])
    before = rows.fingerprint()
    assert rows.fingerprint() == before
    (tmp_path / "good.png").write_bytes(encode(two_colours("L")))
    assert rows.fingerprint() != before


def test_image_digests_are_cached_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsrl.core.digest.MIN_AGE_NS", 0)
    write_images(tmp_path)
    paths = sorted(tmp_path.glob("*.png"))
    first = image_file_digests(paths)
    assert len(set(first)) == 3
    monkeypatch.setattr("dsrl.core.digest._hash_file", lambda path: "read again")
    assert image_file_digests(paths) == first
    (tmp_path / "good.png").write_bytes(encode(two_colours("CMYK"), "TIFF"))
    assert image_file_digests(paths) == [first[0], "read again", first[2]]
    assert image_file_digests([tmp_path / "none.png"]) == ["missing"]


def test_pixel_limits_are_in_the_key(tmp_path: Path) -> None:
    shown = Task(name="t", instruction="Count.", answer=Number(), test=source(tmp_path, ROWS[:1]))
    assert shown.format()["pixels"]["max_pixels"] == 1_003_520


def test_unlabelled_images_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write_images(tmp_path / "below")
    images = UnlabelledImages(path=str(tmp_path / "below"))
    before = images.key_fields()
    found = images.images(Gallery(ImageStore(tmp_path / "images"), SMALL))
    assert [one.reason if isinstance(one, UnusableImage) else one.width for one in found] == ["broken image", 40, 40]
    (tmp_path / "below" / "new.JPG").write_bytes(encode(two_colours(), "JPEG"))
    assert images.key_fields() != before
    with pytest.raises(UserError, match=r"task.pictures: no image"):
        UnlabelledImages(path=str(tmp_path / "images" / "made")).check()


def test_unlabelled_images_from_a_column(tmp_path: Path) -> None:
    write_images(tmp_path)
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
def test_resolve_numbered(text: str, count: int, found: str) -> None:
    assert resolve_numbered(text, count) == found


def test_strip_placeholders() -> None:
    assert strip_placeholders("<image>\n<image>\nHow many, <image> or not?") == "How many,  or not?"
