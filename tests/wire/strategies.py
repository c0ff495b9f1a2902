"""Hypothesis strategies for OIP tensors."""

import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from guard.types import Array
from guard.wire.contents import FIELDS
from guard.wire.tensors import WIRE_DTYPES

DATATYPES = tuple(WIRE_DTYPES)
TYPED = tuple(FIELDS)
SHAPES = nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn, datatype: str) -> Array:
    """Any array that a tensor of this datatype decodes to."""
    shape = draw(SHAPES)
    if datatype == "BYTES":
        size = math.prod(shape)
        flat = np.empty(size, dtype=object)
        flat[:] = draw(st.lists(st.binary(max_size=9), min_size=size, max_size=size))
        return flat.reshape(shape)
    if datatype == "BF16":
        upper = draw(nps.arrays(np.uint16, shape))
        return (upper.astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return draw(nps.arrays(WIRE_DTYPES[datatype], shape))


@st.composite
def tensors(draw: st.DrawFn, datatypes: tuple[str, ...] = DATATYPES) -> tuple[str, Array]:
    """A datatype and an array of it."""
    datatype = draw(st.sampled_from(datatypes))
    return datatype, draw(arrays(datatype))


def same(left: Array, right: Array) -> bool:
    """Equal in shape, dtype and values, NaN included."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))
