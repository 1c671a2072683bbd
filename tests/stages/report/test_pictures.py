"""Pictures on the page: as many as there is room for, and in words what isn't shown."""

import base64
import json
from pathlib import Path

import pytest

from dsrl.data.images import ImageStore, Pixels, content_text, label_images
from dsrl.stages.report import Report
from dsrl.stages.report.pictures import Pictures
from dsrl.stages.report.replies import lengths
from tests.data.images.images import decode, encode, two_colours
from tests.pictured import make_study, shapes

PLAIN = Pixels(min_pixels=1)


def of(page: str, name: str = "data") -> dict:
    return json.loads(page.partition(f'id="{name}">')[2].partition("</script>")[0])


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("What does <image> mean?", 0, "What does <image> mean?"),
        ("<image>\nHow many?", 1, "[image 1]\nHow many?"),
        ("<image> or <image>?", 2, "[image 1] or [image 2]?"),
    ],
)
def test_placeholders_are_numbered(text: str, count: int, expected: str) -> None:
    assert label_images(text, count) == expected


def test_a_turn_with_pictures_is_said_in_one_text() -> None:
    said = [{"type": "image_url", "image_url": {"url": "image:ab"}}, {"type": "text", "text": "How many?"}]
    assert content_text(said) == "[image 1]\nHow many?"


def test_thumbnails_are_made_once_and_no_larger_than_asked_for(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    images = [store.put(encode(two_colours(size=(400, 200))), PLAIN), store.put(encode(two_colours("L")), PLAIN)]
    pictures = Pictures(store, 64, 10**6)
    pictures.take([*images, images[0]])
    assert len(pictures.urls) == 2
    pictures.take(images)
    sizes = [decode(base64.b64decode(url.partition(",")[2])).size for url in pictures.urls]
    assert sizes == [(64, 32), (40, 20)]
    assert pictures.shown(images[::-1]) == [[1, 40, 20], [0, 400, 200]]
    assert pictures.drawn(images[:1]) == [(pictures.urls[0], "")]


@pytest.mark.parametrize(("side", "room"), [(0, 10**6), (64, 0)])
def test_a_page_may_go_without_pictures(side: int, room: int, tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.put(encode(two_colours()), PLAIN)
    pictures = Pictures(store, side, room)
    pictures.take([image])
    assert pictures.urls == []
    assert pictures.shown([image])[0][0] == f"not on this page, to keep it small: images/{image.path}"


def test_room_ends_with_the_picture_that_fills_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    images = [store.put(shapes(number), PLAIN) for number in range(9)]
    pictures = Pictures(store, 64, 1200)
    pictures.take(images)
    assert 0 < len(pictures.urls) < len(images)
    assert sum(map(len, pictures.urls[:-1])) < 1200


def test_a_lost_and_a_broken_picture_are_said(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    images = [store.put(shapes(number), PLAIN) for number in range(3)]
    store.path(images[0]).unlink()
    store.path(images[1]).write_bytes(b"no picture")
    pictures = Pictures(store, 64, 10**6)
    pictures.take(images)
    lost, broken, whole = (place for place, _, _ in pictures.shown(images))
    assert lost == f"no longer in the store: images/{images[0].path}"
    assert broken.startswith(f"can't be read: images/{images[1].path}")
    assert whole == 0


def test_the_page_shows_pairs_funnels_lengths_and_the_replies_to_variants(tmp_path: Path) -> None:
    state, where = make_study(tmp_path)
    where.images.path(state.samples[1].images[0]).unlink()
    page = Report().page(state, where)
    where.close()
    data = of(page)
    rows = {row["id"]: row for row in data["rows"]}
    seed, variant = state.samples[0], state.samples[4]
    assert rows[seed.id]["question"].startswith("[image 1]\nHow many discs")
    assert isinstance(rows[seed.id]["images"][0][0], int)
    assert rows[seed.id]["images"] == rows[variant.id]["images"]
    assert rows[state.samples[1].id]["images"][0][0].startswith("no longer in the store")
    assert "images" not in rows[state.samples[3].id]
    assert [reply.get("right", False) for reply in rows[variant.id]["rollouts"]] == [True, True, False, False]
    assert page.count("<article") == 2
    assert page.count('<img src="data:image/webp;base64,') == 1 + 2
    assert (
        "&lt;image&gt;" not in page.partition('id="samples"')[0].partition('id="variants"')[2].partition("<section")[0]
    )
    assert "right often enough, and less often than the seed, looked at again" in page
    measured = where.metrics["replies"]
    assert measured["seeds"]["words"] == measured["seeds"]["right_words"] == 6
    assert (measured["variants"]["words"], measured["variants"]["right_words"]) == (10.5, 10)
    assert measured["variants"]["right_lines"] == 2


def test_of_no_replies_no_length_is_known(tmp_path: Path) -> None:
    assert lengths(None, {"a"}) is None
    assert lengths(tmp_path / "missing.parquet", {"a"}) is None
