"""What `guard fit` learns of a model's input: layout, and bounds.

Nothing is guessed where a guess could be wrong: then FitError names the flag that tells. Bounds are certain only where
they are given, or where images fill a well-known range; otherwise they are what the clean inputs showed, which is good
enough to look at an input but not to refuse one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from guard import fit_pixels
from guard.fit_clean import Clean, FitError
from guard.fit_inputs import CHANNELS, INTEGERS, Bounds, Choices, Shape, as_taken, input_of, others_of, pick
from guard.profile import Layout, Space
from guard.types import Array, ModelMetadata, TensorSpec

_USUAL = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
_SPAN = 0.02  # of the range may be missing at either end
_SMALL = 8  # fewer rows or columns are hardly an image
_VECTOR, _GREY, _IMAGE = 2, 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The clean inputs as they are sent, by name, and how Guard looks at the inspected one."""

    input: TensorSpec
    inputs: Mapping[str, Array]
    space: Space


def prepare(clean: Clean, metadata: ModelMetadata, choices: Choices) -> Prepared:
    """Bring the clean inputs into the model's form and learn its space. Raises FitError."""
    spec = input_of(metadata, choices.input)
    if spec.datatype == "BYTES":
        x, space = fit_pixels.encoded(clean, spec, choices)
        return Prepared(spec, {spec.name: x}, space)
    pixels = fit_pixels.pixels_of(clean, spec, choices)
    if pixels is not None:
        x, space = fit_pixels.from_pixels(pixels, spec, choices)
        return Prepared(spec, {spec.name: x}, space)
    x = as_taken(pick(clean.arrays, spec.name), spec)
    if not np.isfinite(x).all():
        raise FitError("the clean inputs hold NaN or infinite values")
    layout, shape = _layout(x, spec, choices)
    return Prepared(
        spec, {spec.name: x} | others_of(clean.arrays, metadata, spec, len(x)), _space(x, spec, layout, shape, choices)
    )


def _layout(x: Array, spec: TensorSpec, choices: Choices) -> tuple[Layout, Shape | None]:
    """The layout, and (H, W, C) where it is fixed."""
    layout = choices.layout or _likely_layout(x, choices.image_shape)
    rank = {"nchw": _IMAGE, "nhwc": _IMAGE, "nhw": _GREY, "flat": _VECTOR}.get(layout, x.ndim)
    if layout == "encoded" or x.ndim != rank:
        raise FitError(f"--layout {layout} does not suit inputs of shape {list(x.shape)}")
    if layout == "vector":
        return layout, None
    if layout == "flat":
        if choices.image_shape is None or math.prod(choices.image_shape) != x.shape[1]:
            raise FitError(f"rows of {x.shape[1]} values: --image-shape H,W,C must multiply to that")
        return layout, choices.image_shape
    own = {"nchw": (2, 3, 1), "nhwc": (1, 2, 3), "nhw": (1, 2)}[layout]
    height, width, channels = (*(x.shape[axis] for axis in own), 1)[:3]
    if choices.image_shape not in {None, (height, width, channels)}:
        raise FitError(f"--image-shape {choices.image_shape}, but the inputs are {(height, width, channels)}")
    return layout, (height, width, channels) if min(spec.shape[1:]) > 0 else None


def _likely_layout(x: Array, image_shape: Shape | None) -> Layout:
    if x.ndim <= _VECTOR:
        return "vector" if image_shape is None else "flat"
    if x.ndim == _GREY and x.shape[1] == x.shape[2] >= _SMALL:
        return "nhw"
    if x.ndim == _IMAGE:
        first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
        if first != last:
            return "nchw" if first else "nhwc"
    raise FitError(
        f"inputs of shape {list(x.shape)} can be read in several ways: give --layout nchw, nhwc, nhw or vector"
    )


def _space(x: Array, spec: TensorSpec, layout: Layout, shape: Shape | None, choices: Choices) -> Space:
    if choices.bounds is not None:
        low, high = choices.bounds
        return _holding(x, Space(layout, low, high, certain=True, image_shape=shape))
    if spec.datatype in INTEGERS:
        return Space(layout, *INTEGERS[spec.datatype], certain=True, image_shape=shape)
    least, most = float(x.min()), float(x.max())
    for one, other in _USUAL:
        slack = _SPAN * (other - one)
        if one <= least <= one + slack and other - slack <= most <= other:
            return Space(layout, (one,), (other,), certain=layout != "vector", image_shape=shape)
    low, high = _observed(x, layout)
    return Space(layout, low, high, certain=False, image_shape=shape)


def _observed(x: Array, layout: Layout) -> Bounds:
    """The least and largest value by channel (vectors: by feature); where they are one, room around it."""
    if layout == "vector":
        x = x.reshape(len(x), -1)
    axes = {"nchw": (0, 2, 3), "nhwc": (0, 1, 2), "vector": (0,)}.get(layout)
    low = np.atleast_1d(x.min(axis=axes)).astype(np.float64)
    high = np.atleast_1d(x.max(axis=axes)).astype(np.float64)
    flat = high - low < np.finfo(np.float32).tiny
    return tuple((low - 0.5 * flat).tolist()), tuple((high + 0.5 * flat).tolist())


def _holding(x: Array, space: Space) -> Space:
    """The space, once it is seen to hold the clean inputs."""
    try:
        space.check(x, finite=True, bounds=True)
    except ValueError as error:
        raise FitError(f"--bounds: of the clean inputs {error}") from None
    return space
