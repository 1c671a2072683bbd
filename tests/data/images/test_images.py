import base64
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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
from dsrl.data.images.columns import flatten_cell, image_file_digests, image_path, read_image
from dsrl.data.images.prompt import embed_images, resolve_placeholders, strip_placeholders
from dsrl.data.model import Model
from dsrl.data.sample import content_key
from dsrl.data.source import WRONG_PLACEHOLDERS, Item, Source
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


def long_name(folder: Path) -> str:
    return str(folder / ("deep" * 30) / ("long" * 20) / "a.png")


JPEG = base64_jpeg()
TINY = base64.b64encode(encode(Image.new("RGB", (1, 1)))).decode()
CELLS: dict[str, Any] = {
    "path": "good.png",
    "Path": Path("good.png"),
    "datasets path": {"bytes": None, "path": "good.png"},
    "datasets bytes": {"bytes": encode(two_colours()), "path": None},
    "chat part": {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{JPEG}"}},
    "object with url": {"url": "good.png"},
    "bytes": encode(two_colours()),
    "bytearray": bytearray(encode(two_colours())),
    "Pillow": two_colours(),
    "base64": JPEG,
    "base64 in lines": "\n".join(JPEG[start : start + 76] for start in range(0, len(JPEG), 76)) + "\n",
    "base64 without padding": JPEG.rstrip("="),
    "URL-safe base64": JPEG.translate(str.maketrans("+/", "-_")).replace("_9j_", "/9j/", 1),
    "base64 of one pixel": TINY,
    "data URL": f"data:image/jpeg;base64,{JPEG}",
    "data URL with parameters": f"DATA:application/octet-stream;charset=utf-8;base64, {JPEG}",
    "list in a text": "['good.png']",
}


@pytest.mark.parametrize("name", CELLS)
def test_cell_formats(tmp_path: Path, name: str) -> None:
    write_images(tmp_path)
    (one,) = flatten_cell([CELLS[name]])
    assert decode(read_image(one, tmp_path)).getpixel((0, 0)) is not None


def test_long_path_and_file_url(tmp_path: Path) -> None:
    path = Path(long_name(tmp_path))
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(two_colours()))
    assert len(str(path)) > 200
    assert read_image(str(path), None) == read_image(path.as_uri(), tmp_path) == path.read_bytes()
    assert image_path(path.as_uri(), None) == path


@pytest.mark.parametrize(
    ("cell", "reason", "detail"),
    [
        ("lost.png", "missing image", "lost.png"),
        (7, "no image", "int"),
        ({"url": None, "alt": "x"}, "no image", "url, alt"),
        ("https://example.org/a.png", "image on the web", "example.org"),
        ("?" * 300, "missing image", "???"),
        ("/9j/" + "?" * 300, "broken image", "base64"),
    ],
)
def test_unreadable_cells_have_a_reason(tmp_path: Path, cell: Any, reason: str, detail: str) -> None:
    with pytest.raises(UnusableImage) as caught:
        read_image(cell, tmp_path)
    assert caught.value.reason == reason
    assert detail in str(caught.value)


@pytest.mark.parametrize("cell", [None, "", b"", "nan", "None", "[]", [], float("nan"), [None, ""]])
def test_empty_cells(cell: Any) -> None:
    assert flatten_cell(cell) == []


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
    ("text", "count", "expected", "order"),
    [
        ("See <image1> and <image 2>.", 2, "See <image> and <image>.", (0, 1)),
        ("A is <image2>, B is <image_1>.", 2, "A is <image>, B is <image>.", (1, 0)),
        ("In <image1> are shapes; which of <image1> are not in <image2>?", 2, None, (0, 0, 1)),
        ("First <image_0>, then <image_1>.", 2, "First <image>, then <image>.", (0, 1)),
        ("A. <image 3> B. <Image1> C. <img2>", 3, "A. <image> B. <image> C. <image>", (2, 0, 1)),
        ("See <image1> and <image2>.", 1, "See <image> and .", (0,)),
        ("See <ImageHere> or <|image_pad|> or <IMAGE>.", 3, "See <image> or <image> or <image>.", (0, 1, 2)),
        ("Nothing.", 1, "<image>\nNothing.", (0,)),
        ("Nothing.", 0, "Nothing.", ()),
    ],
)
def test_resolve_placeholders(text: str, count: int, expected: str | None, order: tuple[int, ...]) -> None:
    resolved = resolve_placeholders(text, count)
    assert resolved is not None
    assert resolved[1] == order
    assert resolved[0].count("<image>") == len(order)
    assert expected in (None, resolved[0])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("See <image1>.", 2),
        ("See <image1> and <image3>.", 2),
        ("See <image>.", 2),
        ("<image> or <image>?", 1),
        ("See <image>.", 0),
        ("See <image1>.", 0),
    ],
)
def test_placeholders_that_do_not_fit_the_images(text: str, count: int) -> None:
    assert resolve_placeholders(text, count) is None


def test_numbered_placeholders_show_the_image_of_their_number(tmp_path: Path) -> None:
    write_images(tmp_path)
    gallery = Gallery(ImageStore(tmp_path / "images"), SMALL)
    row = {"q": "A is <image2>, B is <image1>. A again: <image2>?", "a": "2", "i": ["good.png", "other.png"]}
    options = {"q": "Which?", "a": "2", "i": ["good.png", "other.png"], "o": ["<image2>", "2"]}
    (item,) = source(tmp_path, [row]).load(Number(), gallery)
    good, other = (gallery.put((tmp_path / name).read_bytes()) for name in ("good.png", "other.png"))
    assert item.images == (other, good, other)
    assert item.input.count("<image>") == 3
    assert source(tmp_path, [options], options="o").has_wrong_placeholders(options)


def test_literal_placeholder_in_a_row_without_image_is_rejected(tmp_path: Path) -> None:
    rows = source(tmp_path, [{"q": "<image>\nHow many?", "a": "2", "i": cell} for cell in (None, "", [], "nan")])
    assert [rows.read_item(row, Number()) for row in rows.rows()] == [WRONG_PLACEHOLDERS] * 4
    text_only = Source(path=rows.path, input="q", output="a")
    assert isinstance(text_only.read_item(text_only.rows()[0], Number()), Item)


def test_rows_without_an_image_may_lack_the_column(tmp_path: Path) -> None:
    write_images(tmp_path)
    rows = source(tmp_path, [ROWS[0], {"q": "Text only?", "a": "1"}])
    items = rows.load(Number(), Gallery(ImageStore(tmp_path / "images"), SMALL))
    assert [len(item.images) for item in items] == [1, 0]


def reencoded() -> list[bytes]:
    """The same pixels in other encodings."""
    info = PngInfo()
    info.add_text("Software", "another program")
    return [
        encode(two_colours(), compress_level=1),
        encode(two_colours(), compress_level=9),
        encode(two_colours(), pnginfo=info),
        encode(two_colours(), "TIFF"),
        encode(two_colours(), "WEBP", lossless=True),
    ]


def test_content_key_depends_on_pixels_and_words_only(tmp_path: Path) -> None:
    gallery = Gallery(ImageStore(tmp_path), SMALL)
    keys = {
        content_key(text, [gallery.put(data)])
        for data in reencoded()
        for text in ("<image>\nHow many?", "How many?\n<image>", "<image>How  MANY?")
    }
    assert len(keys) == 1
    other = gallery.put(encode(two_colours("L")))
    assert content_key("<image>\nHow many?", [other]) not in keys


def test_strip_placeholders() -> None:
    assert strip_placeholders("<image>\n<image>\nHow many, <image> or not?") == "How many,  or not?"
