"""Images on the page: as many as fit, and why others are missing."""

import base64
import json
from pathlib import Path

import pytest

from dsrl.data.images import ImageStore, Pixels, content_text, label_images
from dsrl.stages.report import Report
from dsrl.stages.report.thumbnails import Thumbnails
from dsrl.stages.report.variants import reply_lengths
from tests.data.images.images import decode, encode, two_colours
from tests.pictured import make_study, shapes

PLAIN = Pixels(min_pixels=1)


def page_data(page: str) -> dict:
    """The JSON that the page embeds."""
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


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


def test_the_text_of_a_turn_with_images() -> None:
    said = [{"type": "image_url", "image_url": {"url": "image:ab"}}, {"type": "text", "text": "How many?"}]
    assert content_text(said) == "[image 1]\nHow many?"


def test_thumbnails_are_made_once_and_at_most_as_large_as_requested(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    images = [store.put(encode(two_colours(size=(400, 200))), PLAIN), store.put(encode(two_colours("L")), PLAIN)]
    thumbnails = Thumbnails(store, 64, 10**6)
    thumbnails.add([*images, images[0]])
    assert len(thumbnails.urls) == 2
    thumbnails.add(images)
    sizes = [decode(base64.b64decode(url.partition(",")[2])).size for url in thumbnails.urls]
    assert sizes == [(64, 32), (40, 20)]
    assert thumbnails.numbers_of(images[::-1]) == [[1, 40, 20], [0, 400, 200]]
    assert thumbnails.urls_of(images[:1]) == [(thumbnails.urls[0], "")]


@pytest.mark.parametrize(("side", "budget"), [(0, 10**6), (64, 0)])
def test_a_page_without_images(side: int, budget: int, tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image = store.put(encode(two_colours()), PLAIN)
    thumbnails = Thumbnails(store, side, budget)
    thumbnails.add([image])
    assert thumbnails.urls == []
    assert thumbnails.numbers_of([image])[0][0] == f"left out to keep the page small: images/{image.path}"


def test_the_budget_ends_with_the_image_that_exceeds_it(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    images = [store.put(shapes(number), PLAIN) for number in range(9)]
    thumbnails = Thumbnails(store, 64, 1200)
    thumbnails.add(images)
    assert 0 < len(thumbnails.urls) < len(images)
    assert sum(map(len, thumbnails.urls[:-1])) < 1200


def test_missing_and_broken_images_have_a_reason(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    images = [store.put(shapes(number), PLAIN) for number in range(3)]
    store.path(images[0]).unlink()
    store.path(images[1]).write_bytes(b"no picture")
    thumbnails = Thumbnails(store, 64, 10**6)
    thumbnails.add(images)
    lost, broken, whole = (place for place, _, _ in thumbnails.numbers_of(images))
    assert lost == f"no longer in the store: images/{images[0].path}"
    assert broken.startswith(f"can't be read: images/{images[1].path}")
    assert whole == 0


def test_pairs_funnels_lengths_and_replies_to_variants_are_on_the_page(tmp_path: Path) -> None:
    state, where = make_study(tmp_path)
    where.images.path(state.samples[1].images[0]).unlink()
    page, figures = Report().page(state, where)
    where.close()
    data = page_data(page)
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
    assert "pass rate in the band and below the seed&#39;s, second check" in page
    measured = figures["replies"]
    assert measured["seeds"]["words"] == measured["seeds"]["right_words"] == 6
    assert (measured["variants"]["words"], measured["variants"]["right_words"]) == (10.5, 10)
    assert measured["variants"]["right_lines"] == 2


def test_without_replies_there_are_no_lengths(tmp_path: Path) -> None:
    assert reply_lengths(None, {"a"}) is None
    assert reply_lengths(tmp_path / "missing.parquet", {"a"}) is None
