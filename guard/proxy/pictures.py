"""Pictures of flagged inputs, where the quarantine keeps the inputs themselves: one row as a PNG of bounded size.

What lies in the quarantine was sent by strangers. Arrays are read without pickle; encoded images are decoded as Guard
decodes them to look at (`guard.wire.images`: bounded, two formats), and drawn anew: their own bytes reach no browser.
"""

import datetime as dt
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from guard.places import Place
from guard.quarantine import PAYLOADS
from guard.types import Array, InvalidQuery
from guard.wire.images import decode_images

MAX_SIDE = 512
MAX_PIXELS = 16 * 1024 * 1024
_COLOURS = 3


class NoPicture(Exception):
    """The row cannot be drawn."""


class NotThere(Exception):
    """The row is not kept, or not yet."""


def draw(place: Place, decision_id: str, time_unix: float, row: int, how: dict[str, Any]) -> bytes:
    """A PNG. how: as `guard.lately` notes it. Raises NoPicture, NotThere, OSError where the place is away."""
    if row not in how["rows"]:
        raise NoPicture
    try:
        if how["layout"] == "encoded":
            stem = f"{decision_id}-{row}"
            return png(_decoded(_found(place, time_unix, f"{stem}.jpg", f"{stem}.png")))
        x = np.load(io.BytesIO(_found(place, time_unix, f"{decision_id}.npy")), allow_pickle=False)
        return png(pixels(x[how["rows"].index(row)], how))
    except (ValueError, IndexError, InvalidQuery):
        raise NoPicture from None


def _found(place: Place, time_unix: float, *names: str) -> bytes:
    """Written on the day of the decision, or just after."""
    day = dt.datetime.fromtimestamp(time_unix, dt.UTC).date()
    for written in (day, day + dt.timedelta(days=1)):
        for name in names:
            try:
                return place.read(f"{PAYLOADS}/{written.isoformat()}/{name}")
            except FileNotFoundError:
                continue
    raise NotThere


def _decoded(data: bytes) -> Array:
    """As large as it came, within bounds: a picture is not resized to what the model takes."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:  # the header alone
            width, height = image.size
    except Exception:  # noqa: BLE001 - Pillow raises a dozen types on a broken header
        raise NoPicture from None
    if width * height > MAX_PIXELS:
        raise NoPicture
    scale = min(1.0, MAX_SIDE / max(width, height))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)), _COLOURS)
    decoded, _ = decode_images([data], shape, MAX_PIXELS, len(data))
    levels: Array = decoded[0]
    return levels


def pixels(row: Array, how: dict[str, Any]) -> Array:
    """One row in the model's own layout -> uint8 (H, W) or (H, W, 3), by the profile's bounds."""
    shape = tuple(how["shape"])
    if len(shape) != _COLOURS or math.prod(shape) != row.size or row.dtype.kind not in "biuf":
        raise NoPicture
    height, width, channels = shape
    last = row.reshape(channels, height, width).transpose(1, 2, 0) if how["layout"] == "nchw" else row.reshape(shape)
    low, high = np.asarray(how["low"], np.float64), np.asarray(how["high"], np.float64)
    if len(low) not in {1, channels}:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    unit = np.nan_to_num((last.astype(np.float64) - low) / (high - low), nan=0.0)
    levels = np.rint(255.0 * np.clip(unit, 0.0, 1.0)).astype(np.uint8)
    return levels if channels == _COLOURS else levels[..., 0]


def png(levels: Array) -> bytes:
    """At most MAX_SIDE a side."""
    image = Image.fromarray(levels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
