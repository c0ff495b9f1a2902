"""Clean inputs that come as images, not as the model takes them: 8-bit pixels, and files for models that decode."""

import math

import numpy as np

from guard.fit_clean import Clean, FitError
from guard.fit_inputs import CHANNELS, INTEGERS, Choices, Shape, as_taken, pick
from guard.profile import Layout, Space
from guard.proxy import ask
from guard.types import Array, TensorSpec


def encoded(clean: Clean, spec: TensorSpec, choices: Choices) -> tuple[Array, Space]:
    """JPEG and PNG bytes, as a model of BYTES takes them. Raises FitError."""
    if choices.image_shape is None:
        raise FitError(f"input {spec.name!r} takes encoded images: say with --image-shape H,W,C at which size to look")
    x = _rows(clean.files) if clean.files else pick(clean.arrays, spec.name).astype(object)
    shape = (len(x), *(1 for _ in spec.shape[1:]))
    if x.size != len(x) or any(want not in (-1, 1) for want in spec.shape[1:]):
        raise FitError(f"input {spec.name!r} takes {list(spec.shape)}, which is not one encoded image a row")
    ask.decode(x[:1], choices.image_shape)
    return x.reshape(shape), Space("encoded", (0.0,), (255.0,), certain=True, image_shape=choices.image_shape)


def _rows(files: tuple[bytes, ...]) -> Array:
    x = np.empty(len(files), dtype=object)
    x[:] = files
    return x


def pixels_of(clean: Clean, spec: TensorSpec, choices: Choices) -> Array | None:
    """(N, H, W, C) uint8, files decoded to one size; None where the inputs are arrays. Raises FitError."""
    if not clean.files:
        return clean.pixels
    shape = choices.image_shape or _shape_of(spec, choices.layout)
    if shape is None:
        raise FitError(f"input {spec.name!r} takes {list(spec.shape)}: give the images' size with --image-shape H,W,C")
    return ask.decode(_rows(clean.files), shape)[0]


def _shape_of(spec: TensorSpec, layout: Layout | None) -> Shape | None:
    """(H, W, C) of an input whose dimensions are all fixed and can be read in one way only."""
    dims = spec.shape[1:]
    if len(dims) not in {2, 3} or min(dims) < 1:
        return None
    if len(dims) == 2:  # noqa: PLR2004 - grey images
        return dims[0], dims[1], 1
    readings = {"nchw": (dims[1], dims[2], dims[0]), "nhwc": (dims[0], dims[1], dims[2])}
    possible = [shape for name, shape in readings.items() if layout in {None, name} and shape[2] in CHANNELS]
    return possible[0] if len(possible) == 1 else None


def from_pixels(pixels: Array, spec: TensorSpec, choices: Choices) -> tuple[Array, Space]:
    """8-bit pixels -> the model's layout and bounds."""
    shape: Shape = pixels.shape[1:]
    layout = choices.layout or _layout_for(shape, spec)
    bounds = choices.bounds or INTEGERS.get(spec.datatype)
    if bounds is None:
        raise FitError(
            f"the clean inputs are 8-bit pixels, input {spec.name!r} takes {spec.datatype}: say what 0 and 255 become, "
            "such as --bounds 0,1"
        )
    fixed = layout == "flat" or min(spec.shape[1:], default=-1) > 0
    space = Space(layout, *bounds, certain=True, image_shape=shape if fixed else None)
    height, width, channels = shape
    inner = {"nchw": (channels, height, width), "nhwc": shape, "nhw": (height, width)}.get(layout, (math.prod(shape),))
    like = np.empty((0, *inner), dtype=ask.dtype_of(spec.datatype))
    return as_taken(space.from_unit(pixels.astype(np.float32) / np.float32(255), like), spec), space


def _layout_for(shape: Shape, spec: TensorSpec) -> Layout:
    height, width, channels = shape
    forms: dict[Layout, tuple[int, ...]] = {
        "nchw": (channels, height, width),
        "nhwc": (height, width, channels),
        "flat": (math.prod(shape),),
    }
    if channels == 1:
        forms["nhw"] = (height, width)
    fitting = [
        layout
        for layout, dims in forms.items()
        if len(dims) == len(spec.shape) - 1
        and all(want in (-1, got) for got, want in zip(dims, spec.shape[1:], strict=True))
    ]
    if len(fitting) != 1:
        raise FitError(
            f"the clean inputs are images of {shape} (height, width, channels), input {spec.name!r} takes "
            f"{list(spec.shape)}: "
            + (f"give --layout, one of {', '.join(fitting)}" if fitting else "they do not go together")
        )
    return fitting[0]
