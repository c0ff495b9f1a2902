"""What `guard fit` is told, and which of the clean arrays goes into which of the model's inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from guard.fit_clean import FitError
from guard.profile import Layout, Meaning
from guard.proxy import ask
from guard.types import Array, ModelMetadata, TensorSpec

Shape = tuple[int, int, int]
Bounds = tuple[tuple[float, ...], tuple[float, ...]]

CHANNELS = frozenset({1, 3, 4})
INTEGERS: Mapping[str, Bounds] = MappingProxyType(
    {"UINT8": ((0.0,), (255.0,)), "INT8": ((-128.0,), (127.0,)), "BOOL": ((0.0,), (1.0,))}
)


@dataclass(frozen=True, slots=True)
class Choices:
    """What is told, not learned; None: learn it."""

    input: str | None = None
    output: str | None = None
    layout: Layout | None = None
    image_shape: Shape | None = None
    bounds: Bounds | None = None
    meaning: Meaning | None = None


def input_of(metadata: ModelMetadata, wanted: str | None) -> TensorSpec:
    """The inspected input. Raises FitError."""
    specs = {spec.name: spec for spec in metadata.inputs}
    if wanted is None and len(specs) == 1:
        return metadata.inputs[0]
    if wanted in specs:
        return specs[wanted]
    listed = ", ".join(specs) or "none that the server tells of"
    raise FitError(f"which input is to be guarded? Give --input; {metadata.name!r} has {listed}")


def pick(arrays: Mapping[str, Array], name: str) -> Array:
    """The array for an input: of its name, or `x`, or the only one. Raises FitError."""
    for key in (name, "x"):
        if key in arrays:
            return arrays[key]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise FitError(f"which array holds the inputs? Call it {name!r}; there are {', '.join(arrays) or 'none'}")


def others_of(arrays: Mapping[str, Array], metadata: ModelMetadata, spec: TensorSpec, rows: int) -> dict[str, Array]:
    """The model's further inputs, which are sent along unchanged."""
    others = {}
    for other in metadata.inputs:
        if other.name == spec.name:
            continue
        if other.name not in arrays:
            raise FitError(f"the model also takes {other.name!r}: put an array of that name into the .npz file")
        others[other.name] = as_taken(arrays[other.name], other)
        if len(others[other.name]) != rows:
            raise FitError(f"{other.name!r} has {len(others[other.name])} rows, {spec.name!r} has {rows}")
    return others


def as_taken(x: Array, spec: TensorSpec) -> Array:
    """In the model's dtype, once the shape is seen to fit."""
    fits = x.ndim == len(spec.shape) and all(
        want in (-1, got) for got, want in zip(x.shape[1:], spec.shape[1:], strict=True)
    )
    if not fits or x.ndim == 0:
        raise FitError(f"the clean inputs have shape {list(x.shape)}, input {spec.name!r} takes {list(spec.shape)}")
    if spec.datatype == "BYTES":
        return x.astype(object)
    try:
        return ask.cast(x, ask.dtype_of(spec.datatype))
    except ValueError as error:
        raise FitError(f"input {spec.name!r} takes {spec.datatype}: {error}") from None
