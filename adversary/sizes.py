"""How large a perturbation is, in each unit an attack may be bound by.

linf, l2, l1:  over all values, in [0, 1]
l0:            how many pixels differ
patch:         the share of the image's area that the smallest upright box around all changed pixels covers
spatial:       the size of the rotation and shift that explains the image (adversary.warps), infinite where none does
none:          0: where size is not what matters
"""

import numpy as np

from adversary import warps
from adversary.attack import Array, Norm, norms
from adversary.images import changed, planes


def sizes(x: Array, x_adv: Array, norm: Norm) -> Array:
    """(N, ...), (N, ...) -> (N,)."""
    if norm == "spatial":
        return np.array([warps.size(a, b) for a, b in zip(x, x_adv, strict=True)], np.float64)
    if norm == "none":
        return np.zeros(len(x), np.float64)
    delta = x_adv.astype(np.float64) - x
    return np.asarray(_boxes(delta) if norm == "patch" else norms(delta, norm))


def _boxes(delta: Array) -> Array:
    touched = changed(planes(delta))
    area = touched.shape[1] * touched.shape[2]
    boxes = [_extent(t.any(axis=1)) * _extent(t.any(axis=0)) for t in touched]
    return np.asarray(np.array(boxes, np.float64) / area)


def _extent(touched: Array) -> int:
    """(L,) -> from the first touched to the last, both included."""
    places = np.flatnonzero(touched)
    return int(places[-1] - places[0] + 1) if len(places) else 0
