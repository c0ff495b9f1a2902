"""Clips: a camera that moves smoothly over a still image, as 8-bit frames.

The image is the scene; beyond its border it is mirrored (grey images of one channel on their own ground go on as they
end). The frame is a window of it that pans, zooms and breathes in brightness. A third of the clips pan by whole pixels,
as a cropping service does; the others move by fractions of one.

Returns: frames (N, C, H, W) float32 in [0, 1], multiples of 1/255.
"""

import cv2
import numpy as np

from adversary.attack import Array

_WHOLE = 1 / 3  # of all clips
_SPEED = 0.6  # pixels a frame, about
_ZOOM = 0.01  # a frame, at most
_ZOOMS = (0.7, 1.3)
_LIGHT = 0.01  # a frame, about
_LIGHTS = (0.75, 1.25)
_REACH = 0.3  # of a side: how far the window goes at most


def clip(image: Array, frames: int, rng: np.random.Generator, *, noise: float = 0.0) -> Array:
    """(C, H, W) -> (frames, C, H, W). noise: standard deviation of a sensor's."""
    scene = np.ascontiguousarray(image.transpose(1, 2, 0), np.float32)
    height, width = scene.shape[:2]
    whole = rng.random() < _WHOLE
    x, y = (_walk(frames, _SPEED, (-_REACH * side, _REACH * side), rng) for side in (width, height))
    zoom = np.ones(frames) if whole else 1.0 + _walk(frames, _ZOOM, (_ZOOMS[0] - 1.0, _ZOOMS[1] - 1.0), rng)
    light = 1.0 + _walk(frames, _LIGHT, (_LIGHTS[0] - 1.0, _LIGHTS[1] - 1.0), rng)
    if whole:
        x, y = np.round(x), np.round(y)
    seen = np.stack([_window(scene, x[t], y[t], zoom[t]) for t in range(frames)]) * light[:, None, None, None]
    seen = seen + noise * rng.standard_normal(seen.shape)
    levels = np.round(np.clip(seen, 0.0, 1.0) * 255.0).astype(np.float32) / np.float32(255.0)
    return np.ascontiguousarray(levels.transpose(0, 3, 1, 2))


def _window(scene: Array, x: float, y: float, zoom: float) -> Array:
    """What a window moved by (x, y) pixels from the middle shows, `zoom` times as large."""
    height, width = scene.shape[:2]
    middle = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    offset = middle + np.array([x, y]) - middle / zoom
    matrix = np.array([[1.0 / zoom, 0.0, offset[0]], [0.0, 1.0 / zoom, offset[1]]])
    seen = cv2.warpAffine(
        scene, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(seen, np.float32).reshape(scene.shape)


def _walk(frames: int, speed: float, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
    """(frames,) places, from 0: a velocity that drifts, turned back at the bounds."""
    place, velocity, places = 0.0, rng.normal(0.0, speed), [0.0]
    for _ in range(frames - 1):
        velocity += 0.2 * (rng.normal(0.0, speed) - velocity)
        if not bounds[0] <= place + velocity <= bounds[1]:
            velocity = -velocity
        place = float(np.clip(place + velocity, *bounds))
        places.append(place)
    return np.array(places)
