"""The attacks that are measured, with the bounds of the shipped campaigns and the catalogue's budgets.

Label-only attacks begin at an image of another class. SimBA takes smaller steps on photographs, as in the campaign
`standard-cifar10`: a walk of its usual ones ends beyond the bound.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from adversary.catalogue import CATALOGUE, Entry
from adversary.data.cache import sha256

PLAIN = ("boundary", "hop-skip-jump", "nes", "square", "simba", "zoo", "qeba", "surfree")
OARS = ("oars-nes", "oars-square", "oars-hop-skip-jump", "oars-boundary")
DISGUISED = ("nes", "square", "hop-skip-jump", "boundary")
"""What is split over accounts, and hidden among benign traffic."""
_BOUNDS: Mapping[str, Mapping[str, float]] = {"mnist": {}, "cifar10": {"linf": 8 / 255, "l2": 1.0}}
_OPTIONS: Mapping[tuple[str, str], Mapping[str, Any]] = {("cifar10", "simba"): {"step": 0.03}}
_MS_A_QUERY = {"mnist": 0.4, "cifar10": 2.5}


@dataclass(frozen=True, slots=True)
class Planned:
    """One attack on one victim. eps in the norm of its entry; budget in queries a victim image."""

    data: str
    entry: Entry
    eps: float
    budget: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether it begins at an image of another class."""
        return self.entry.access == "labels"

    @property
    def code(self) -> str:
        """A digest of the file that it is in."""
        return _digest(self.entry.module or f"evasion.{self.entry.name.replace('-', '_')}")

    def seconds(self, share: float = 1.0) -> float:
        """What one run takes, about, where it spends a share of its budget."""
        return share * self.budget * _MS_A_QUERY[self.data] / 1000.0


def planned(data: str, name: str) -> Planned:
    """By the data and the catalogue's name."""
    entry = CATALOGUE[name]
    eps = _BOUNDS[data].get(entry.norm, entry.eps)
    return Planned(data, entry, eps, entry.budget, _OPTIONS.get((data, name), {}))


@lru_cache(maxsize=64)
def _digest(module: str) -> str:
    file = importlib.import_module(f"adversary.{module}").__file__
    return sha256(Path(file or "").read_bytes())
