"""Pictures of what the quarantine keeps: layouts, bounds, and that broken or strange objects are no pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guard.places import Directory
from guard.proxy import pictures
from guard.proxy.pictures import MAX_SIDE, NoPicture, NotThere, draw

ID = "0123456789abcdef0123456789abcdef"
NOON = 1_795_780_800.0  # 2026-11-27T12:00Z


def how(layout: str, shape: tuple[int, ...], rows: tuple[int, ...] = (0,), **bounds: Any) -> dict[str, Any]:
    return {"rows": list(rows), "layout": layout, "shape": list(shape), "low": [0.0], "high": [1.0], **bounds}


def kept(root: Path, x: np.ndarray, day: str = "2026-11-27") -> Directory:
    buffer = io.BytesIO()
    np.save(buffer, x, allow_pickle=False)
    place = Directory(root)
    place.write(f"payloads/{day}/{ID}.npy", buffer.getvalue())
    return place


def seen(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)


IMAGE = np.arange(24, dtype=np.float32).reshape(2, 4, 3) / 23


@pytest.mark.parametrize(
    ("layout", "x"),
    [("nhwc", IMAGE[None]), ("nchw", IMAGE.transpose(2, 0, 1)[None]), ("flat", IMAGE.reshape(1, -1))],
)
def test_every_layout_is_drawn_alike(tmp_path: Path, layout: str, x: np.ndarray) -> None:
    drawn = draw(kept(tmp_path, x), ID, NOON, 0, how(layout, (2, 4, 3)))
    np.testing.assert_array_equal(seen(drawn), np.rint(IMAGE * 255))


def test_grey_and_the_row_that_was_asked_for(tmp_path: Path) -> None:
    x = np.stack([np.full((2, 2), level, np.uint8) for level in (10, 20)])
    place = kept(tmp_path, x)
    told = how("nhw", (2, 2, 1), rows=(3, 7), low=[0.0], high=[255.0])
    assert seen(draw(place, ID, NOON, 7, told)).tolist() == [[20, 20], [20, 20]]
    with pytest.raises(NoPicture):
        draw(place, ID, NOON, 0, told)


def test_bounds_of_channels(tmp_path: Path) -> None:
    x = np.array([[[[-1.0, 5.0, 100.0]]]], np.float32)
    told = how("nhwc", (1, 1, 3), low=[-1.0, 0.0, 0.0], high=[1.0, 10.0, 50.0])
    assert seen(draw(kept(tmp_path, x), ID, NOON, 0, told)).tolist() == [[[0, 128, 255]]]


def test_what_is_no_number_is_black(tmp_path: Path) -> None:
    x = np.array([[[[np.nan], [np.inf], [-np.inf], [0.5]]]], np.float32)
    assert seen(draw(kept(tmp_path, x), ID, NOON, 0, how("nhwc", (1, 4, 1)))).tolist() == [[0, 255, 0, 128]]


def test_written_after_midnight(tmp_path: Path) -> None:
    place = kept(tmp_path, IMAGE[None], "2026-11-28")
    assert draw(place, ID, NOON, 0, how("nhwc", (2, 4, 3)))


def test_large_ones_are_made_small(tmp_path: Path) -> None:
    x = np.zeros((1, 3 * MAX_SIDE, MAX_SIDE, 1), np.uint8)
    assert max(seen(draw(kept(tmp_path, x), ID, NOON, 0, how("nhwc", x.shape[1:]))).shape) == MAX_SIDE


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_drawn_by_their_first(tmp_path: Path, channels: int) -> None:
    x = np.zeros((1, 2, 2, channels), np.float32)
    x[..., 0] = 1.0
    assert seen(draw(kept(tmp_path, x), ID, NOON, 0, how("nhwc", (2, 2, channels)))).tolist() == [[255] * 2] * 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_encoded_images_are_drawn_anew(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(buffer, kind)
    place = Directory(tmp_path)
    strange = buffer.getvalue() + b"<script>"
    place.write(f"payloads/2026-11-27/{ID}-0.{'jpg' if kind == 'JPEG' else 'png'}", strange)
    drawn = draw(place, ID, NOON, 0, how("encoded", ()))
    assert drawn.startswith(b"\x89PNG")
    assert b"<script>" not in drawn
    assert seen(drawn).shape == (20, 40, 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8 no image", b"\x89PNG\r\n\x1a\n" + b"0" * 90])
def test_what_is_no_image_is_no_picture(tmp_path: Path, data: bytes) -> None:
    place = Directory(tmp_path)
    place.write(f"payloads/2026-11-27/{ID}-0.png", data)
    with pytest.raises(NoPicture):
        draw(place, ID, NOON, 0, how("encoded", ()))


def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 99)
    buffer = io.BytesIO()
    Image.new("L", (10, 10)).save(buffer, "PNG")
    place = Directory(tmp_path)
    place.write(f"payloads/2026-11-27/{ID}-0.png", buffer.getvalue())
    with pytest.raises(NoPicture):
        draw(place, ID, NOON, 0, how("encoded", ()))


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (np.zeros((1, 3), np.float32), (2, 2, 1)),
        (np.zeros((1, 2, 2, 1), np.complex64), (2, 2, 1)),
        (np.zeros((1, 4), np.float32), (4,)),
    ],
)
def test_rows_of_another_kind_are_no_pictures(tmp_path: Path, x: np.ndarray, shape: tuple[int, ...]) -> None:
    with pytest.raises(NoPicture):
        draw(kept(tmp_path, x), ID, NOON, 0, how("flat", shape))


def test_pickles_are_not_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    Directory(tmp_path).write(f"payloads/2026-11-27/{ID}.npy", buffer.getvalue())
    with pytest.raises(NoPicture):
        draw(Directory(tmp_path), ID, NOON, 0, how("flat", (1, 1, 1)))


def test_what_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(NotThere):
        draw(Directory(tmp_path), ID, NOON, 0, how("nhwc", (2, 4, 3)))
