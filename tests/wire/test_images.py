"""Encoded images: what is decoded, what is refused before it costs anything."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from guard.types import Array, InvalidQuery
from guard.wire import bare
from guard.wire.images import decode_images, encode_images

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(20) * 6, np.arange(30) * 4).astype(np.uint8)
HW = (20, 30)


def encoded(picture: Array | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(
    *rows: bytes, shape: tuple[int, int, int] = (*HW, 3), max_pixels: int = 600, max_bytes: int = 10**6
) -> Array:
    return decode_images(rows, shape, max_pixels, max_bytes)[0]


def test_a_png_is_exact() -> None:
    x, formats = decode_images([encoded(COLOUR)], (*HW, 3), 600, 10**6)
    assert formats == ("PNG",)
    assert (x.dtype, x.shape, x.flags.writeable) == (np.uint8, (1, *HW, 3), False)
    assert (x[0] == COLOUR).all()


def test_a_jpeg_is_what_pillow_makes_of_it() -> None:
    data = encoded(COLOUR, "JPEG", quality=80)
    x, formats = decode_images([data], (*HW, 3), 600, 10**6)
    assert formats == ("JPEG",)
    assert (x[0] == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_grey_becomes_colour_and_colour_grey() -> None:
    assert (decode(encoded(SMOOTH)) == SMOOTH[..., None]).all()
    grey = decode(encoded(COLOUR), shape=(*HW, 1))[0, ..., 0].astype(float)
    assert np.abs(grey - COLOUR @ [0.299, 0.587, 0.114]).max() <= 1  # ITU-R BT.601


def test_sixteen_bits_keep_the_high_byte() -> None:
    deep = RNG.integers(0, 2**16, HW, dtype=np.uint16)
    assert (decode(encoded(deep), shape=(*HW, 1))[0, ..., 0] == deep >> 8).all()
    assert (decode(encoded(deep))[0] == (deep >> 8)[..., None]).all()


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([COLOUR, RNG.integers(0, 256, HW, dtype=np.uint8)])
    assert (decode(encoded(rgba))[0] == COLOUR).all()
    la = Image.fromarray(np.dstack([SMOOTH, SMOOTH]), "LA")
    assert (decode(encoded(la), shape=(*HW, 1))[0, ..., 0] == SMOOTH).all()


def test_palettes_are_looked_up() -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    wanted = np.asarray(image.convert("RGB"))
    assert (decode(encoded(image))[0] == wanted).all()
    assert (decode(encoded(image, transparency=bytes(range(0, 256, 16))))[0] == wanted).all()
    bits = Image.fromarray(SMOOTH > 90)
    assert set(np.unique(decode(encoded(bits)))) == {0, 255}


def test_cmyk_jpegs_have_colours() -> None:
    image = Image.new("CMYK", (30, 20), (0, 255, 255, 0))
    assert np.abs(decode(encoded(image, "JPEG"))[0].astype(int) - [255, 0, 0]).max() <= 4


def test_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6
    for kind in ("JPEG", "PNG"):
        assert (decode(encoded(SMOOTH, kind, exif=exif)) == decode(encoded(SMOOTH, kind))).all()


def test_other_sizes_are_resized() -> None:
    x = decode(encoded(SMOOTH), encoded(COLOUR), shape=(10, 15, 3))
    assert x.shape == (2, 10, 15, 3)
    halves = SMOOTH.reshape(10, 2, 15, 2).mean(axis=(1, 3))
    assert np.abs(x[0, 1:-1, 1:-1, 0] - halves[1:-1, 1:-1]).max() <= 2


def test_one_a_row() -> None:
    png = encoded(COLOUR)
    for shape in ((2,), (2, 1), (2, 1, 1)):
        rows = np.array([png, png], dtype=object).reshape(shape)
        assert decode_images(rows, (*HW, 3), 600, 10**6)[0].shape == (2, *HW, 3)
    for shape in ((1, 2), ()):
        rows = np.array([png, png] if shape else png, dtype=object).reshape(shape)
        with pytest.raises(InvalidQuery, match="one a row"):
            decode_images(rows, (*HW, 3), 600, 10**6)
    assert decode_images(np.zeros(0, object), (*HW, 3), 600, 10**6)[0].shape == (0, *HW, 3)


def test_a_profile_of_four_channels_is_no_clients_fault() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels") as caught:
        decode(encoded(COLOUR), shape=(*HW, 4))
    assert not isinstance(caught.value, InvalidQuery)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data, 9)), chunk(b"IEND", b"")]
    return bare.PNG_START + b"".join(parts)


def test_the_png_made_by_hand_is_one() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in SMOOTH)
    assert (decode(png(30, 20, data=rows), shape=(*HW, 1))[0, ..., 0] == SMOOTH).all()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "neither JPEG nor PNG"),
        (b"GIF89a" + bytes(100), "neither JPEG nor PNG"),
        (b"BM" + bytes(100), "neither JPEG nor PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n", "neither JPEG nor PNG"),
        (encoded(COLOUR[:4, :4], "GIF"), "neither JPEG nor PNG"),
        (encoded(COLOUR[:4, :4], "TIFF"), "neither JPEG nor PNG"),
        (encoded(COLOUR[:4, :4], "WEBP"), "neither JPEG nor PNG"),
        (bytes(1001), "has 1001 bytes, at most 1000"),
        (bare.PNG_START, "header"),
        (bare.JPEG_START, "header"),
        (bare.JPEG_START + b"\xe0\x00\x04ab\xff\xda", "header"),  # a scan of nothing
        (b"\xff\xd8" + b"\xff\xe0\x00\x01", "header"),
        (b"\xff\xd8\xff" + b"\xff" * 500, "header"),
        (b"\xff\xd8" + b"\xff\xe1\x00\x02" * 200, "header"),
        (b"\xff\xd8\xff\xe0\x00\x02junk", "header"),
        (png(30, 20, *[chunk(b"teXt", b"")] * 70), "header"),
        (png(30, 20)[:-12], "header"),
        (png(30, 20, chunk(b"ABCD", b"")), "decoded"),  # critical, and unknown
        (png(30, 20), "decoded"),
        (png(30, 21), "has 630 pixels, at most 600"),
        (png(60_000, 60_000), "has 3600000000 pixels, at most 600"),
        (png(2**31 - 1, 2**31 - 1), "pixels, at most 600"),
        (png(0, 0), "header|decoded"),
        (png(30, 20, data=bytes(619)), "decoded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(InvalidQuery, match=text) as caught:
        decode(encoded(SMOOTH), data, max_bytes=1000)
    assert str(caught.value).startswith("image 1: ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_refused(kind: str) -> None:
    data = encoded(COLOUR, kind)
    with pytest.raises(InvalidQuery, match="cannot be"):
        decode(data[: len(data) * 3 // 4])


def test_pixels_are_bounded_over_the_request() -> None:
    rows = [encoded(SMOOTH)] * 17
    assert decode(*rows[:16]).shape[0] == 16
    with pytest.raises(InvalidQuery, match="image 16: it and those before it have more than 9600 pixels in all"):
        decode(*rows)


def test_decoded_elements_are_bounded() -> None:
    with pytest.raises(InvalidQuery, match="2 images are more than"):
        decode_images([b"", b""], (100, 100, 3), 600, 1000, max_elements=59_999)


def test_a_bomb_is_not_decoded() -> None:
    """100 MPixel in 100 kB: a control shows that it is a real image."""
    bomb = png(10_000, 10_000, data=bytes(10_001 * 10_000))
    assert len(bomb) < 120_000
    with pytest.raises(InvalidQuery, match="has 100000000 pixels"):
        decode(bomb)
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        assert Image.open(io.BytesIO(bomb)).convert("L").getextrema() == (0, 0)
    finally:
        Image.MAX_IMAGE_PIXELS = before


def progressive(scans: int) -> bytes:
    """A progressive JPEG whose last scan is given many times over."""
    data = encoded(SMOOTH, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + b"\xff\xd9"


def test_scans_are_bounded() -> None:
    assert decode(encoded(SMOOTH, "JPEG", progressive=True)).shape == (1, *HW, 3)
    assert decode(progressive(bare.MAX_JPEG_SCANS)).shape == (1, *HW, 3)
    with pytest.raises(InvalidQuery, match="header"):
        decode(progressive(bare.MAX_JPEG_SCANS + 1))
    assert np.asarray(Image.open(io.BytesIO(progressive(bare.MAX_JPEG_SCANS + 1)))).shape == HW  # the control


def test_metadata_never_reaches_the_decoder() -> None:
    exif = Image.Exif()
    exif[270] = "secret"
    jpeg = encoded(COLOUR, "JPEG", exif=exif, comment=b"secret", icc_profile=b"secret" * 20_000, progressive=True)
    assert b"secret" in jpeg
    assert b"secret" not in bare.bare_jpeg(jpeg)
    assert (decode(jpeg) == np.asarray(Image.open(io.BytesIO(jpeg)))).all()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("k", "secret")
    flat = encoded(COLOUR, pnginfo=texts, exif=exif, icc_profile=b"secret")
    assert b"secret" in flat
    assert b"secret" not in bare.bare_png(flat)
    assert (decode(flat)[0] == COLOUR).all()


def test_fill_bytes_and_what_follows_the_image_are_ignored() -> None:
    jpeg = encoded(COLOUR, "JPEG")
    filled = jpeg[:2] + b"\xff\xff" + jpeg[2:] + b"more"
    assert (decode(filled) == decode(jpeg)).all()
    assert (decode(encoded(COLOUR) + b"more")[0] == COLOUR).all()


def test_only_the_first_picture_counts() -> None:
    """Animated PNG and multi-picture JPEG are files of several; servers read the first."""
    second = Image.fromarray(255 - COLOUR)
    apng = encoded(COLOUR, save_all=True, append_images=[second])
    assert (decode(apng)[0] == COLOUR).all()
    mpo = encoded(COLOUR, "MPO", save_all=True, append_images=[second])
    assert (decode(mpo) == decode(encoded(COLOUR, "JPEG"))).all()


def test_no_other_decoder_is_reached() -> None:
    mpo = encoded(COLOUR, "MPO", save_all=True, append_images=[Image.fromarray(COLOUR)])
    code = f"""
import sys
from guard.wire.images import decode_images
decode_images({[encoded(SMOOTH), encoded(SMOOTH, "JPEG"), mpo]!r}, (20, 30, 3), 600, 10**6)
named = {{name for name in sys.modules if name.startswith("PIL.") and name.endswith("ImagePlugin")}}
sys.exit(", ".join(named - {{"PIL.JpegImagePlugin", "PIL.PngImagePlugin"}}) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_purified_png_is_exact_a_jpeg_close() -> None:
    x = np.stack([COLOUR, np.repeat(SMOOTH[..., None], 3, -1), COLOUR])
    again, formats = decode_images(encode_images(x, ("PNG", "JPEG", "PNG")), (*HW, 3), 600, 10**6)
    assert formats == ("PNG", "JPEG", "PNG")
    assert (again[[0, 2]] == x[[0, 2]]).all()
    assert np.abs(again[1].astype(int) - x[1]).max() <= 4


def test_a_jpegs_colours_are_not_thinned_out() -> None:
    red_and_blue = np.zeros((1, 16, 16, 3), np.uint8)
    red_and_blue[:, :, ::2, 0] = red_and_blue[:, :, 1::2, 2] = 200
    again, _ = decode_images(encode_images(red_and_blue, ["JPEG"]), (16, 16, 3), 600, 10**6)
    assert np.abs(again.astype(int) - red_and_blue).mean() < 8


def test_grey_stays_grey() -> None:
    (data,) = encode_images(SMOOTH[None, ..., None], ["PNG"])
    assert Image.open(io.BytesIO(data)).mode == "L"
    assert encode_images(np.zeros((0, 4, 4, 3), np.uint8), []) == []


def test_only_bytes_are_encoded() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_images(np.zeros((1, 4, 4, 3)), ["PNG"])
    with pytest.raises(ValueError, match="one format"):
        encode_images(np.zeros((1, 4, 4, 3), np.uint8), [])


SEEDS = [
    encoded(COLOUR),
    encoded(COLOUR, "JPEG"),
    encoded(SMOOTH, "JPEG", progressive=True),
    encoded(Image.fromarray(COLOUR).quantize(16)),
]


@settings(max_examples=300)
@given(
    st.sampled_from(SEEDS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3)), max_size=4)
)
def test_damaged_images_are_decoded_or_invalid(data: bytes, damages: list[tuple[float, bytes]]) -> None:
    for where, damage in damages:
        at = int(where * len(data))
        data = data[:at] + damage + data[at + len(damage) :]
    try:
        x, (kind,) = decode_images([data], (8, 8, 3), 600, 10**6)
    except InvalidQuery:
        return
    assert x.shape == (1, 8, 8, 3)
    assert kind in {"JPEG", "PNG"}


@given(st.sampled_from([bare.JPEG_START, bare.PNG_START, b""]), st.binary(max_size=200))
def test_any_bytes_are_decoded_or_invalid(start: bytes, rest: bytes) -> None:
    with pytest.raises(InvalidQuery):
        decode_images([start + rest], (8, 8, 3), 600, 10**6)
