"""Clean images as the next frame of a film would have them: what monitors must not take for a search.

Small pans, zooms, turns and changes of light, drawn anew for each image; edges are mirrored. `guard fit` calibrates
monitors with clean rows among others, and with such frames beside the images that they follow.
"""

import cv2
import numpy as np

from guard.types import Floats

_IMAGE_RANK = 4
PAN = 1.5 / 32  # of the sides
ZOOM = 0.04
TURN = 0.03  # radians
LIGHT = 0.06  # of contrast, and of the range


def next_frames(unit: Floats, rng: np.random.Generator) -> Floats | None:
    """(N, H, W, C) -> the same shape in [0, 1]; None for what is no image. One kind of motion each, or all at once."""
    if unit.ndim != _IMAGE_RANK:
        return None
    return np.stack([_moved(row, rng) for row in unit]).astype(np.float32)


def _moved(row: Floats, rng: np.random.Generator) -> Floats:
    kinds = np.eye(4)[int(rng.integers(4))] if rng.random() < 0.75 else np.full(4, 0.6)  # noqa: PLR2004
    amounts = rng.uniform(-1.0, 1.0, 6)
    height, width = row.shape[:2]
    zoom, turn = 1.0 + ZOOM * kinds[1] * amounts[2], TURN * kinds[2] * amounts[3]
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    across, down = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(
        [
            [cosine, -sine, across - cosine * across + sine * down + PAN * width * kinds[0] * amounts[0]],
            [sine, cosine, down - sine * across - cosine * down + PAN * height * kinds[0] * amounts[1]],
        ]
    )
    made = cv2.warpAffine(
        np.ascontiguousarray(row), matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    ).reshape(row.shape)
    light = LIGHT * kinds[3]
    return np.asarray(np.clip(made * (1.0 + light * amounts[4]) + light * amounts[5], 0.0, 1.0))
