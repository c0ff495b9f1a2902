"""Encoded images: JPEG and PNG bytes to uint8 arrays of one size, and back.

Source: JPEG (ITU-T T.81) and PNG (W3C) as Pillow reads them.
Answers: decompression bombs (bytes and pixels are bounded from the header, before decoding), and parsers nobody needs:
         two of Pillow's classes are called by name, so that no other format can be reached, and metadata is cut out.
Bypass:  servers resize and convert in their own ways; what Guard inspects is close to what they see, not equal.
         EXIF orientation is not applied, alpha is dropped, 16-bit samples keep their high byte, as servers commonly do.
Shapes:  (N, H, W, C), C = 1 (grey) or 3 (RGB).
Cost:    some 10 ns a pixel to decode. One request may hold MAX_IMAGES_WORTH times `max_pixels` in all.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from guard.types import Array, InvalidQuery
from guard.wire.bare import JPEG_START, PNG_START, bare_jpeg, bare_png
from guard.wire.tensors import MAX_ELEMENTS, frozen

Format = Literal["JPEG", "PNG"]
MAX_IMAGES_WORTH = 16
_MODES = {1: "L", 3: "RGB"}


def decode_images(
    rows: Array | Sequence[bytes],
    shape: tuple[int, int, int],
    max_pixels: int,
    max_bytes: int,
    *,
    max_elements: int = MAX_ELEMENTS,
) -> tuple[Array, tuple[Format, ...]]:
    """Encoded images, one a row, (N,) or (N, 1) -> uint8 (N, H, W, C) and each row's format. Raises InvalidQuery.

    max_pixels, max_bytes: of one image as it came. max_elements: of the decoded array.
    """
    if shape[2] not in _MODES:
        raise ValueError(f"images are inspected with 1 or 3 channels, not {shape[2]}")
    encoded = _one_a_row(rows)
    if len(encoded) * int(np.prod(shape)) > max_elements:
        raise InvalidQuery(f"{len(encoded)} images are more than can be inspected at once")
    decoded = np.empty((len(encoded), *shape), dtype=np.uint8)
    formats, left = [], MAX_IMAGES_WORTH * max_pixels
    for i, data in enumerate(encoded):
        try:
            image, kind = _open(data, max_bytes)
            left -= _count_pixels(image, max_pixels, left)
            decoded[i] = _to_array(image, shape)
        except InvalidQuery as error:
            raise InvalidQuery(f"image {i}: {error}") from None
        formats.append(kind)
    return frozen(decoded), tuple(formats)


def encode_images(x: Array, formats: Sequence[Format]) -> list[bytes]:
    """uint8 (N, H, W, C) -> encoded images: PNG without loss, JPEG at quality 95 without chroma subsampling."""
    if x.dtype != np.uint8 or len(x) != len(formats):
        raise ValueError("encode_images takes uint8 images and one format for each")
    pixels = x[..., 0] if x.shape[-1] == 1 else x
    return [_encode(image, kind) for image, kind in zip(pixels, formats, strict=True)]


def _encode(pixels: Array, kind: Format) -> bytes:
    buffer = BytesIO()
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _one_a_row(rows: Array | Sequence[bytes]) -> list[bytes]:
    if not isinstance(rows, np.ndarray):
        return list(rows)
    if rows.ndim == 0 or rows.size != len(rows):
        raise InvalidQuery("encoded images come one a row")
    return list(rows.ravel())


def _open(data: bytes, max_bytes: int) -> tuple[JpegImageFile | PngImageFile, Format]:
    """Read the header, nothing more."""
    if len(data) > max_bytes:
        raise InvalidQuery(f"it has {len(data)} bytes, at most {max_bytes} are taken")
    if not data.startswith((JPEG_START, PNG_START)):
        raise InvalidQuery("it is neither JPEG nor PNG")
    try:
        if data.startswith(JPEG_START):
            return JpegImageFile(BytesIO(bare_jpeg(data))), "JPEG"
        return PngImageFile(BytesIO(bare_png(data))), "PNG"
    except Exception:  # noqa: BLE001 - Pillow raises a dozen types on a broken header
        raise InvalidQuery("its header cannot be read") from None


def _count_pixels(image: Image.Image, max_pixels: int, left: int) -> int:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise InvalidQuery(f"it has {pixels} pixels, at most {max_pixels} are taken")
    if pixels > left:
        raise InvalidQuery(f"it and those before it have more than {MAX_IMAGES_WORTH * max_pixels} pixels in all")
    return pixels


def _to_array(image: Image.Image, shape: tuple[int, int, int]) -> Array:
    """Decode, convert to grey or RGB, resize: (H, W, C)."""
    height, width, channels = shape
    try:
        image.load()
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert(_MODES[channels])
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.uint8).reshape(shape)
    except Exception:  # noqa: BLE001 - Pillow raises a dozen types on broken data
        raise InvalidQuery("its data cannot be decoded") from None
