"""Some labelled images: what every data set here is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """images: (N, ...) uint8; labels: (N,) int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, rows: slice) -> "Split":
        """Some of it."""
        return Split(self.images[rows], self.labels[rows])
