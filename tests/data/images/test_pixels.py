from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from dsrl.data.images import Pixels, UnusableImage
from tests.data.images.drawn import WIDE, file, halves, opened

AS_IT_IS = Pixels(min_pixels=1, max_pixels=10**6)


def turned() -> bytes:
    """Lying on its side, with a note that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(halves().rotate(90, expand=True), "JPEG", exif=exif, quality=100, subsampling=0)


def see_through() -> bytes:
    picture = halves("RGBA")
    picture.putalpha(0)
    return file(picture)


COLOURS = [
    ("png", file(halves()), (220, 20, 20), (20, 20, 220)),
    ("palette", file(halves("P")), (220, 20, 20), (20, 20, 220)),
    ("cmyk", file(halves("CMYK"), "JPEG", quality=100), (220, 20, 20), (20, 20, 220)),
    ("alpha", file(halves("RGBA")), (220, 20, 20), (20, 20, 220)),
    ("turned", turned(), (220, 20, 20), (20, 20, 220)),
    ("see-through", see_through(), (255, 255, 255), (255, 255, 255)),
    ("grey, 16 bit", file(Image.new("I;16", WIDE, 128 * 256)), (128,) * 3, (128,) * 3),
    ("grey with alpha", file(halves("LA")), (80,) * 3, (33,) * 3),
    ("gif", file(halves("P"), "GIF", save_all=True, append_images=[halves("P")]), (220, 20, 20), (20, 20, 220)),
    ("webp", file(halves(), "WEBP", lossless=True), (220, 20, 20), (20, 20, 220)),
]


@pytest.mark.parametrize(("data", "left", "right"), [case[1:] for case in COLOURS], ids=[case[0] for case in COLOURS])
def test_every_form_becomes_the_same_upright_colours(data: bytes, left: Any, right: Any) -> None:
    seen = opened(AS_IT_IS.fit(data).data)
    assert seen.size == WIDE
    assert seen.mode == "RGB"
    for place, wanted in (((5, 10), left), ((35, 10), right)):
        assert max(abs(one - other) for one, other in zip(seen.getpixel(place), wanted, strict=True)) < 30  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_fit_file_stays_as_it_is(form: str) -> None:
    data = file(halves(), form)
    assert AS_IT_IS.fit(data).data == data


def test_the_same_picture_is_made_into_the_same_bytes() -> None:
    small = Pixels(min_pixels=1, max_pixels=200)
    assert small.fit(file(halves())) == small.fit(file(halves()))


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_sizes_are_within_the_dials_and_keep_their_proportion(width: int, height: int) -> None:
    pixels = Pixels(min_pixels=10_000, max_pixels=50_000)
    wide, high = pixels.size(width, height)
    if max(width, height) / min(width, height) < 20:
        assert 9_000 <= wide * high <= 55_000
        assert wide / high == pytest.approx(width / height, rel=0.2)


def bomb() -> bytes:
    """A few bytes that say they hold 50,000 x 50,000 pixels."""
    data = bytearray(file(Image.new("1", (8, 8))))
    import zlib

    data[16:24] = (50_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "broken image"),
        (b"hello, this is no picture", "broken image"),
        (file(halves())[:-30], "broken image"),
        (file(halves(), "JPEG")[:300], "broken image"),
        (bomb(), "huge image"),
    ],
)
def test_what_cannot_be_shown_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableImage) as refused:
        AS_IT_IS.fit(data)
    assert refused.value.reason == reason
    assert str(refused.value)


def test_dials_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"min_pixels is more than max_pixels"):
        Pixels(min_pixels=2, max_pixels=1)
