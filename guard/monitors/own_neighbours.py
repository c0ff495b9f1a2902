"""How near each row lies to the caller's own earlier rows that were answered alike.

Of two clean rows answered alike one lies within d of the other with probability F(d), which depends on the class: the
nearest of m does with m F(d) at most, however unevenly a class is spread. So who asks about one class alone is held
against that class, and who has sent more against more. Distances are of positions, relative to the row's own length.

Source:  k nearest of a caller's own queries: Chen, Carlini, Wagner 2019, arXiv:1907.05587 (there of an encoder, at a
         fixed threshold); that a thief's queries are made from each other: PRADA, Juuti et al. 2019, arXiv:1805.02628
         (there the shape of all distances). What is beside one of the caller's latest rows says nothing here: it is of
         a film, or of a search, which other monitors see.
Answers: extraction by rounds of steps from what was asked before (Papernot's JBDA), from the first round on.
         Known bypass: steps longer than natural inputs are apart (T-RND's), another account for each round, rounds of
         several hundred rows (a caller's latest 256 are kept), images of the model's own kind.
Args:    rows: positions. past.recent: the caller's latest rows, with their labels; rows of one query are not held
         against each other. probs: (N, C). Learns from the positions of at most `rows` clean rows, by several secrets,
         for each class that has enough of them: distances at fixed F, of that secret by which they are least. Classes
         with few rows are one: F is then of rows that share a class, whichever it is.
Returns: (N,) -ln(m F(d)), 0 where that is no surprise; higher = nearer.
Cost:    0.04 to 0.07 ms a row at 256 recent ones; no upstream row. Array: at most 101 x 8 numbers.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from guard.features import in_turn
from guard.monitors._clean import FEWEST_OF_GROUP, Groups
from guard.registry import register
from guard.types import Array, Equipment, Floats, Material, Past, Seen

_LEVELS = np.array([1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5, 0.9])
_LOGS: list[float] = np.log(_LEVELS).tolist()
_ENOUGH = 20  # pairs, each counted from both sides, that a level stands on
_SHORTEST = 0.5  # a row without contrast has no length of its own to compare with
_NEAREST = 1e-6
_STEP = 1e-6  # of logarithms
_NOWHERE = 2.0 * math.log(_NEAREST)  # where nothing is known of a class, nothing is near


@register("monitor", "own_neighbours")
@dataclass(frozen=True)
class OwnNeighbours:
    """rows: clean ones to learn from."""

    rows: Annotated[int, Field(ge=FEWEST_OF_GROUP, le=20_000)] = 5_000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """Logarithms of distances by class. Raises ValueError: labels only, too few rows, no positions."""
        if material.probs is None:
            raise ValueError("it needs the model's answers to the inputs that it learns from")
        if len(material.x) < FEWEST_OF_GROUP:
            raise ValueError(f"learns from at least {FEWEST_OF_GROUP} clean rows, and there are {len(material.x)}")
        labels = np.asarray(material.probs.argmax(axis=1), dtype=np.int64)
        chosen = in_turn(labels, self.rows, material.seed)
        draws, labels = material.positions(material.x[chosen]), labels[chosen]
        if not draws:
            raise ValueError("it learns from positions, and there are none")
        groups = Groups.of(labels)
        curves = np.min([_curves(positions, labels, groups) for positions in draws], axis=0)
        return {"classes": groups.known, "curves": curves + _STEP * np.arange(len(_LEVELS))}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work."""
        arrays = equipment.arrays
        return _Working(Groups(arrays["classes"].astype(np.int64)), arrays["curves"].astype(np.float64).tolist())


@dataclass(frozen=True, eq=False)
class _Working:
    """curves: by group, logarithms of distances, ascending."""

    groups: Groups
    curves: list[list[float]]

    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        """(N, C) -> (N,)."""
        labels = probs.argmax(axis=1)
        groups = self.groups.at(labels).tolist()
        own = {label: past.recent.positions[past.recent.labels == label] for label in set(labels.tolist())}
        return np.array(
            [
                0.0 if row.beside else self._score(row.sketch.position, own[label], group)
                for row, label, group in zip(rows, labels.tolist(), groups, strict=True)
            ]
        )

    def _score(self, position: Floats, own: Floats, group: int) -> float:
        if not len(own) or own.shape[1:] != position.shape:
            return 0.0
        ways = np.subtract(own, position, dtype=np.float64)
        nearest = math.sqrt(float(np.einsum("nd,nd->n", ways, ways).min()))
        length = max(math.sqrt(float(np.dot(position, position))), _SHORTEST)
        return max(0.0, -math.log(len(own)) - _log_share(math.log(max(nearest / length, _NEAREST)), self.curves[group]))


def _log_share(log_distance: float, curve: list[float]) -> float:
    """The logarithm of F, by straight lines between what is known and below it."""
    if log_distance >= curve[-1]:
        return 0.0
    last = min(max(bisect_left(curve, log_distance), 1), len(curve) - 1)
    slope = (_LOGS[last] - _LOGS[last - 1]) / (curve[last] - curve[last - 1])
    return _LOGS[last] + slope * (log_distance - curve[last])


def _curves(positions: Floats, labels: NDArray[np.int64], groups: Groups) -> NDArray[np.float64]:
    """(R, D), (R,) -> (G, Q) logarithms of the distances between rows answered alike, at fixed shares of the pairs."""
    parts = {label: _distances(positions[labels == label]) for label in np.unique(labels).tolist()}
    alike = np.concatenate(list(parts.values()))
    return np.stack([_curve(alike), *(_curve(parts[label]) for label in groups.known.tolist())])


def _curve(distances: Floats) -> NDArray[np.float64]:
    """(P,) -> (Q,); levels that too few pairs stand on continue the line of those above."""
    first = int(np.searchsorted(_LEVELS * len(distances), _ENOUGH))
    if first > len(_LEVELS) - 2:
        return np.full(len(_LEVELS), _NOWHERE)
    logs = np.log(np.maximum(np.quantile(distances, _LEVELS), _NEAREST))
    slope = (logs[first + 1] - logs[first]) / (_LOGS[first + 1] - _LOGS[first])
    below = logs[first] + slope * (np.array(_LOGS[:first]) - _LOGS[first])
    return np.asarray(np.maximum.accumulate(np.concatenate([below, logs[first:]])), dtype=np.float64)


def _distances(rows: Floats) -> NDArray[np.float64]:
    """(R, D) -> of each row to each other, relative to its own length."""
    places = rows.astype(np.float64)
    squares = (places**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2.0 * places @ places.T, 0.0))
    relative = apart / np.maximum(np.sqrt(squares), _SHORTEST)[:, None]
    return np.asarray(relative[~np.eye(len(places), dtype=np.bool_)])
