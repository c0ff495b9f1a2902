"""Interleaving: the attack's queries are a small share of what the caller sends, the rest is harmless.

Source: Li et al. 2024, arXiv:2405.20641 (query provenance analysis, which is tested at 1 % attack traffic).
Access: the base attack's. Norm: its own. Cost: up to `budget` queries a victim, 1 / share of them for one of the base.
Limits: buys nothing from a monitor that finds the attack's queries by their likeness, however far apart they are.

Harmless rows and the attack's are shuffled, and travel in calls as large as the attack's own.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from adversary.adaptive.wrapping import Endpoint, Purse, disguised, gathered, gathered_labels
from adversary.attack import Array, Refused, Result
from adversary.bases import low_frequencies
from adversary.images import like, planes

_SMOOTH = 0.25  # of the frequencies of a made-up image
_GREY = 2  # axes of the least image


def attack(
    target: Endpoint,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    base: str = "square",
    share: float = 0.1,
    benign: Array | None = None,
    starts: Array | None = None,
    options: Mapping[str, Any] | None = None,
) -> Result:
    """Stops where the base attack does.

    base:    an attack by queries in the catalogue; starts, options: its own.
    share:   of the attack's rows in all rows.
    benign:  (M, ...) inputs to hide among; by default smooth random images are made up, which hide it less well.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError("the attack's share is above 0, and 1 at most")

    def harmless(n: int) -> Array:
        return _made_up(n, x, rng) if benign is None else np.asarray(benign)[rng.integers(len(benign), size=n)]

    def disguise(purse: Purse, _: int) -> Endpoint:
        return _Mixed(purse, harmless, (1.0 - share) / share, rng)

    return disguised(
        disguise, target, x, y, base=base, eps=eps, budget=budget, rng=rng, price=1.0 / share, starts=starts,
        options=options,
    )  # fmt: skip


def _made_up(n: int, x: Array, rng: np.random.Generator) -> Array:
    """Smooth images like x, noisy vectors where x holds no images."""
    if x.ndim <= _GREY:
        return rng.uniform(0.0, 1.0, (n, *x.shape[1:]))
    channels, height, width = planes(x).shape[1:]
    space = low_frequencies(height, width, _SMOOTH)
    images = space.lift(rng.standard_normal((n, channels, *space.small)))
    low, high = images.min(axis=(2, 3), keepdims=True), images.max(axis=(2, 3), keepdims=True)
    return like((images - low) / np.maximum(high - low, 1e-9), x)


class _Mixed:
    """An endpoint to which every row goes in a crowd. ratio: harmless rows a row."""

    def __init__(
        self, oracle: Endpoint, harmless: Callable[[int], Array], ratio: float, rng: np.random.Generator
    ) -> None:
        self._oracle, self._harmless, self._ratio, self._rng = oracle, harmless, ratio, rng
        self._owed = 0.0

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,)."""
        parts = [(places, self._oracle.labels(rows)) for rows, places in self._calls(x)]
        return gathered_labels(len(x), [(places[places >= 0], answer[places >= 0]) for places, answer in parts])

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C)."""
        parts = [(places, self._oracle.probabilities(rows)) for rows, places in self._calls(x)]
        return gathered(
            len(x),
            [
                (places[places >= 0], answer if isinstance(answer, Refused) else answer[places >= 0])
                for places, answer in parts
                if (places >= 0).any()
            ],
        )

    def _calls(self, x: Array) -> Iterator[tuple[Array, Array]]:
        """Rows, and the place in x that each has, -1 for a harmless one."""
        self._owed += self._ratio * len(x)
        crowd = int(self._owed + 1e-9)
        self._owed -= crowd
        rows = np.concatenate([x, np.reshape(self._harmless(crowd), (crowd, *x.shape[1:]))])
        order = self._rng.permutation(len(rows))
        for start in range(0, len(rows), len(x)):
            some = order[start : start + len(x)]
            yield rows[some], np.where(some < len(x), some, -1)
