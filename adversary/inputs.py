"""What a campaign sends: labelled test inputs, and clean ones that profiles are fitted on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adversary.attack import Array
from adversary.campaign import CampaignError, Data
from adversary.data import mnist
from adversary.data.cache import sha256

_WHITE = 255.0


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """x: (N, ...) float32 in [0, 1] in the model's layout; y: (N,) labels.

    clean, clean_y:  as many again that the victim did not learn from, for `guard fit` and for surrogates; may be none.
    note:            what a reader must know of the data.
    """

    x: Array
    y: Array
    clean: Array
    clean_y: Array
    source: str
    digest: str
    note: str = ""


def load(data: Data, say: Callable[[str], None]) -> Inputs:
    """Raises CampaignError, DataUnavailable."""
    return _npz(data.file) if data.file is not None else _mnist(data.directory, say)


def _mnist(directory: Path | None, say: Callable[[str], None]) -> Inputs:
    read = mnist.load(directory, say)
    test, clean = read.test, mnist.unit(read.clean.images)
    return Inputs(
        mnist.unit(test.images), test.labels, clean, read.clean.labels, read.source, read.digest, read.note
    )  # fmt: skip


def _npz(path: Path) -> Inputs:
    try:
        content = path.read_bytes()
        with np.load(path, allow_pickle=False) as stored:
            x, y = stored["x"], stored["y"]
    except (OSError, ValueError, KeyError) as error:
        raise CampaignError("data.file", f"cannot read x and y from {path}: {error}") from None
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(_WHITE)
    if x.dtype.kind != "f" or y.dtype.kind not in "iu" or y.shape != (len(x),):
        raise CampaignError("data.file", "x must be uint8 or floats, y one whole number a row")
    if not (np.isfinite(x).all() and x.min(initial=0.0) >= 0.0 and x.max(initial=0.0) <= 1.0):
        raise CampaignError("data.file", "floats in x must lie in [0, 1]")
    x = np.asarray(x, np.float32)
    y = y.astype(np.int64)
    return Inputs(x, y, x[:0], y[:0], path.name, sha256(content))
