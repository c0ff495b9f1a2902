"""What the purifiers that are a network of the profile share."""

from dataclasses import dataclass

import numpy as np

from guard.types import Array, Equipment, Network


@dataclass(frozen=True, eq=False)
class Through:
    """A network in unit form whose output `x` is its input, purified."""

    network: Network

    @classmethod
    def of(cls, equipment: Equipment, name: str) -> "Through":
        """By its name in the profile. Raises ValueError where it is not there."""
        if name not in equipment.networks:
            raise ValueError(f"needs the profile's {name}; `guard fit` with this stage makes it")
        return cls(equipment.networks[name])

    def purify(self, x: Array) -> Array:
        """(N, ...) unit form -> the same. Raises ValueError for outputs of another shape, or not finite."""
        return checked(self.network(x)["x"], x)


def checked(y: Array, x: Array) -> Array:
    """A network's output, within bounds. Raises ValueError where it cannot stand in for x."""
    if y.shape != x.shape:
        raise ValueError(f"the network makes {y.shape} of {x.shape}")
    if not np.isfinite(y).all():
        raise ValueError("the network's output is not finite")
    return np.clip(y, 0, 1).astype(np.float32, copy=False)
