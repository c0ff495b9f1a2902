"""Query blinding: what is sent is a random transform of what is asked, and answers to several are averaged.

Source: Chen, Carlini, Wagner 2019, arXiv:1907.05587; transforms and ranges as in the code of SEAT, from the same group.
Access: the base attack's. Norm: its own. Cost: up to `budget` queries a victim, `copies` of them for one of the base,
        and one for each success that it claims.
Limits: the answer to a transform only resembles the answer that was asked for, which blinds attacks that rely on small
        differences (NES); encoders trained on such transforms still see the likeness.

Each query gets one transform, drawn among noise, contrast, brightness and, for images, rotation with a shift. With
scores, a success on transforms is asked for once more, untransformed, and counts only if that is answered wrongly.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from adversary.adaptive.wrapping import Endpoint, Pooled, Purse, disguised, gathered
from adversary.attack import Array, Refused, Result
from adversary.warps import MOST_DEGREES, warp

_SIGMA = 0.1
_CONTRAST = (0.9, 1.4)
_BRIGHTNESS = 0.05
_DEGREES = 22.5
_SHIFT = 1 / 3  # of the largest shift in adversary.warps: 1 of 28 pixels
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
    copies: int = 3,
    strength: float = 1.0,
    starts: Array | None = None,
    options: Mapping[str, Any] | None = None,
) -> Result:
    """Stops where the base attack does.

    base:      an attack by queries in the catalogue; starts, options: its own.
    strength:  scales the ranges of all transforms.
    """

    def disguise(purse: Purse, label: int) -> Endpoint:
        return _Blinded(purse, lambda rows: blinded(rows, rng, strength), copies, label)

    return disguised(
        disguise, target, x, y, base=base, eps=eps, budget=budget, rng=rng, price=copies, starts=starts,
        options=options,
    )  # fmt: skip


def blinded(x: Array, rng: np.random.Generator, strength: float = 1.0) -> Array:
    """(N, ...) -> each row under a random transform of its own, in [0, 1]."""
    kinds = [_noise, _contrast, _brightness] + ([_turn] if x.ndim > _GREY else [])
    rows = [kinds[rng.integers(len(kinds))](row, rng, strength) for row in x]
    return np.asarray(np.clip(np.stack(rows), 0.0, 1.0))


def _noise(row: Array, rng: np.random.Generator, strength: float) -> Array:
    return np.asarray(row + rng.uniform(0.0, _SIGMA * strength) * rng.standard_normal(row.shape))


def _contrast(row: Array, rng: np.random.Generator, strength: float) -> Array:
    low, high = _CONTRAST
    return np.asarray(row * (1.0 + strength * (rng.uniform(low, high) - 1.0)))


def _brightness(row: Array, rng: np.random.Generator, strength: float) -> Array:
    return np.asarray(row + strength * rng.uniform(-_BRIGHTNESS, _BRIGHTNESS))


def _turn(row: Array, rng: np.random.Generator, strength: float) -> Array:
    most = np.array([[_DEGREES / MOST_DEGREES, _SHIFT, _SHIFT]])
    return np.asarray(warp(row, rng.uniform(-1.0, 1.0, (1, 3)) * most * strength)[0])


class _Blinded:
    """Pooled answers to transforms; what they say of a success is asked again in the open."""

    def __init__(self, oracle: Endpoint, version: Callable[[Array], Array], copies: int, y: int) -> None:
        self._oracle, self._pooled, self._y = oracle, Pooled(oracle, version, copies), y

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,)."""
        return self._pooled.labels(x)

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C)."""
        answer = self._pooled.probabilities(x)
        if isinstance(answer, Refused):
            return answer
        claimed = np.flatnonzero(~np.isnan(answer).any(axis=1) & (answer.argmax(axis=1) != self._y))
        if not len(claimed):
            return answer
        confirmed = self._oracle.probabilities(x[claimed])
        return gathered(len(x), [(np.arange(len(x)), answer), (claimed, confirmed)])
