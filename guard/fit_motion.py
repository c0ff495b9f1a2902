"""Clean images as another camera would have them: what monitors must not take for a search, nor for a thief's.

Small pans, zooms, turns and changes of light; edges are mirrored. Drawn anew for each image they are the next frames of
films: `guard fit` calibrates monitors of rows with clean rows among others, and with such frames beside the images that
they follow. Drawn once for all they are a caller with a camera of his own, whose images differ from the clean ones all
in the same way: windows of such are no evidence.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from guard.types import Array, Floats

_IMAGE_RANK = 4
_KINDS = np.array([0, 0, 1, 2, 3, 3])  # pan, zoom, turn, light
PAN = 1.5 / 32  # of the sides
ZOOM = 0.04
TURN = 0.03  # radians
LIGHT = 0.06  # of contrast, and of the range


def next_frames(unit: Floats, rng: np.random.Generator) -> Floats | None:
    """(N, H, W, C) -> the same shape in [0, 1]; None for what is no image. One kind of motion each, or all at once."""
    if unit.ndim != _IMAGE_RANK:
        return None
    return np.stack([_moved(row, _of_frame(rng)) for row in unit]).astype(np.float32)


def other_cameras(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count, 6) what so many cameras do to every image: each kind of change, by half of its most or more."""
    shape = (count, len(_KINDS))
    return rng.choice((-1.0, 1.0), shape) * rng.uniform(0.5, 1.0, shape)


def by_camera(unit: Floats, camera: Array) -> Floats | None:
    """(N, H, W, C) -> the same shape in [0, 1], all changed alike; None for what is no image."""
    if unit.ndim != _IMAGE_RANK:
        return None
    return np.stack([_moved(row, camera) for row in unit]).astype(np.float32)


def _of_frame(rng: np.random.Generator) -> Array:
    kinds = np.eye(4)[int(rng.integers(4))] if rng.random() < 0.75 else np.full(4, 0.6)  # noqa: PLR2004
    return np.asarray(kinds[_KINDS] * rng.uniform(-1.0, 1.0, len(_KINDS)))


def _moved(row: Floats, amounts: Array) -> Floats:
    """amounts: (6,) in [-1, 1]: pan across and down, zoom, turn, contrast, brightness."""
    height, width = row.shape[:2]
    zoom, turn = 1.0 + ZOOM * amounts[2], TURN * amounts[3]
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    across, down = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(
        [
            [cosine, -sine, across - cosine * across + sine * down + PAN * width * amounts[0]],
            [sine, cosine, down - sine * across - cosine * down + PAN * height * amounts[1]],
        ]
    )
    made = cv2.warpAffine(
        np.ascontiguousarray(row), matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    ).reshape(row.shape)
    return np.asarray(np.clip(made * (1.0 + LIGHT * amounts[4]) + LIGHT * amounts[5], 0.0, 1.0))
