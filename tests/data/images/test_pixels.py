import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from dsrl.data.images import Pixels, UnusableImage
from dsrl.data.images.columns import ImageColumns
from dsrl.data.images.preprocess import MAX_ASPECT_RATIO, MAX_KEPT_BYTES, MAX_SIDE
from tests.data.images.images import SIZE, decode, encode, two_colours

UNBOUNDED = Pixels(min_pixels=1, max_pixels=10**6)


def rotated() -> bytes:
    """Rotated, with the EXIF orientation that undoes it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(two_colours().rotate(90, expand=True), "JPEG", exif=exif, quality=100, subsampling=0)


def transparent() -> bytes:
    picture = two_colours("RGBA")
    picture.putalpha(0)
    return encode(picture)


def animated_gif() -> bytes:
    return encode(two_colours("P"), "GIF", save_all=True, append_images=[two_colours("P")])


COLOURS = [
    ("png", encode(two_colours()), (220, 20, 20), (20, 20, 220)),
    ("palette", encode(two_colours("P")), (220, 20, 20), (20, 20, 220)),
    ("cmyk", encode(two_colours("CMYK"), "JPEG", quality=100), (220, 20, 20), (20, 20, 220)),
    ("alpha", encode(two_colours("RGBA")), (220, 20, 20), (20, 20, 220)),
    ("rotated", rotated(), (220, 20, 20), (20, 20, 220)),
    ("transparent", transparent(), (255, 255, 255), (255, 255, 255)),
    ("grey, 16 bit", encode(Image.new("I;16", SIZE, 128 * 256)), (128,) * 3, (128,) * 3),
    ("grey with alpha", encode(two_colours("LA")), (80,) * 3, (33,) * 3),
    (
        "gif",
        encode(two_colours("P"), "GIF", save_all=True, append_images=[two_colours("P")]),
        (220, 20, 20),
        (20, 20, 220),
    ),
    ("webp", encode(two_colours(), "WEBP", lossless=True), (220, 20, 20), (20, 20, 220)),
]


@pytest.mark.parametrize(("data", "left", "right"), [case[1:] for case in COLOURS], ids=[case[0] for case in COLOURS])
def test_every_format_becomes_upright_rgb(data: bytes, left: Any, right: Any) -> None:
    seen = decode(UNBOUNDED.fit(data).data)
    assert seen.size == SIZE
    assert seen.mode == "RGB"
    for place, expected in (((5, 10), left), ((35, 10), right)):
        assert max(abs(one - other) for one, other in zip(seen.getpixel(place), expected, strict=True)) < 30  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_suitable_file_is_kept_byte_for_byte(form: str) -> None:
    data = encode(two_colours(), form)
    assert UNBOUNDED.fit(data).data == data


def test_preprocessing_is_deterministic() -> None:
    small = Pixels(min_pixels=1, max_pixels=200)
    assert small.fit(encode(two_colours())) == small.fit(encode(two_colours()))


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_sizes_respect_pixel_limits_and_aspect_ratio(width: int, height: int) -> None:
    pixels = Pixels(min_pixels=10_000, max_pixels=50_000)
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        with pytest.raises(UnusableImage):
            pixels.size(width, height)
        return
    wide, high = pixels.size(width, height)
    if max(width, height) / min(width, height) < 20:
        assert 9_000 <= wide * high <= 55_000
        assert wide / high == pytest.approx(width / height, rel=0.2)


def bomb() -> bytes:
    """A few bytes whose header claims 50,000 x 50,000 pixels."""
    data = bytearray(encode(Image.new("1", (8, 8))))
    import zlib

    data[16:24] = (50_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "broken image"),
        (b"hello, this is not an image", "broken image"),
        (encode(two_colours())[:-30], "broken image"),
        (encode(two_colours(), "JPEG")[:300], "broken image"),
        (bomb(), "huge image"),
    ],
)
def test_unusable_images_have_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableImage) as caught:
        UNBOUNDED.fit(data)
    assert caught.value.reason == reason
    assert str(caught.value)


def test_min_pixels_above_max_pixels_is_rejected() -> None:
    with pytest.raises(ValidationError, match="min_pixels"):
        Pixels(min_pixels=2, max_pixels=1)


def odd_exif(tag: int) -> bytes:
    """A JPEG that is rotated by its EXIF data, in which a numeric entry is written as text."""
    entries = sorted([(0x0112, 3, struct.pack("<HH", 6, 0)), (tag, 2, b"72\0\0")])
    packed = b"".join(
        struct.pack("<HHI", number, kind, 1 if kind == 3 else 3) + value for number, kind, value in entries
    )
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    return encode(two_colours().rotate(90, expand=True), "JPEG", exif=exif, quality=100, subsampling=0)


@pytest.mark.parametrize("data", [odd_exif(0x011A), odd_exif(0x0100)], ids=["resolution", "width"])
def test_odd_exif_entries_do_not_spoil_an_image(data: bytes) -> None:
    assert decode(UNBOUNDED.fit(data).data).size == SIZE


def test_big_endian_16_bit_grey() -> None:
    out = decode(UNBOUNDED.fit(encode(Image.new("I;16B", SIZE, 128 * 256), "TIFF")).data)
    assert out.getpixel((1, 1)) == (128, 128, 128)


@pytest.mark.parametrize("error", [RuntimeError, TypeError, SyntaxError, ZeroDivisionError])
def test_any_exception_of_a_decoder_concerns_one_row(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, *args: object, **kwargs: object) -> None:
        raise error("Decoding of color planes failed")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    fault = ImageColumns(("image",), None).find_fault({"image": encode(two_colours())})
    assert fault is not None
    assert fault.startswith(f"broken image: {error.__name__}")


def test_large_files_are_encoded_anew() -> None:
    data = encode(two_colours(), "JPEG") + b"appended video" * 400_000
    assert len(UNBOUNDED.fit(data).data) < MAX_KEPT_BYTES < len(data)


def test_long_sides_are_bounded() -> None:
    assert max(UNBOUNDED.size(12_000, 80)) == MAX_SIDE
    assert max(Pixels().size(5000, 30)) <= MAX_SIDE


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"<svg xmlns=", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML"),
    ],
)
def test_common_other_files_are_named(start: bytes, word: str) -> None:
    with pytest.raises(UnusableImage, match=word):
        UNBOUNDED.fit(start + b" " * 100)
