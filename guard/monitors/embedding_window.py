"""Whether a caller's latest rows are distributed, in the auxiliary's embedding, as clean rows answered alike are.

The two-sample statistic is the maximum mean discrepancy with a Gaussian kernel, conditional on the answers: each row is
centred by the clean rows of its own class, k~(a, b) = k(a, b) - E k(a, B) - E k(A, b) + E k(A, B), and the statistic is
the sum of k~ over pairs of different rows, in units of its deviation for clean rows with the same answers. So a caller
who asks about one class, or about classes unevenly, looks as clean rows of those classes do.

Source:  Gretton et al. 2012, JMLR 13 (MMD; median heuristic). Windows of embeddings against extraction: as published
         for language models (a false-positive rate of 0.3 %); conditional on answers as the kernel conditional test.
Answers: extraction by foreign, synthetic or generated inputs, also where each row alone is plausible.
         Known bypass: queries drawn from the model's own data; a thief who mixes in many of them.
Args:    recent: `window` rows' embeddings (E,) of length 1 and labels. Learns the embeddings and answers of at most
         `rows` clean rows.
Returns: deviations, LEAST where there are fewer: traffic that has drifted a little from the clean rows (MNIST's test
         split against its training split: 1.4 in the median, 3 for windows of one class) must not add up.
Cost:    0.3 ms a window of 64 (2,000 x 64), 0.005 ms a row; no upstream row. Array: (rows, E) float16, at most 256 KB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from guard.features import AUXILIARY
from guard.monitors._clean import FEWEST_OF_GROUP, Groups, clean_embeddings
from guard.registry import register
from guard.types import Array, Equipment, Material, Recent

LEAST = 10.0  # deviations; of clean windows one in some hundred reaches it
_TINY = 1e-12


@register("monitor", "embedding_window")
@dataclass(frozen=True)
class EmbeddingWindow:
    """window: rows judged together; rows: kept of the clean ones."""

    needs: ClassVar[tuple[str, ...]] = (AUXILIARY,)
    window: Annotated[int, Field(ge=8, le=256)] = 64
    rows: Annotated[int, Field(ge=FEWEST_OF_GROUP, le=2000)] = 2000

    def learn(self, material: Material) -> Mapping[str, Array]:
        """The reference, its answers, and the kernel's width: the median distance. Raises ValueError."""
        reference, labels = clean_embeddings(material, self.rows)
        if len(reference) < FEWEST_OF_GROUP:
            raise ValueError(f"learns from at least {FEWEST_OF_GROUP} clean rows, and there are {len(reference)}")
        squared = _squared(reference, reference)[np.triu_indices(len(reference), 1)]
        width = np.array([max(float(np.median(squared)), _TINY)])
        return {"reference": reference, "labels": labels, "classes": Groups.of(labels).known, "squared_width": width}

    def equip(self, equipment: Equipment) -> "_Working":
        """The monitor at work: the clean rows' own part of the statistic is worked out here."""
        arrays = equipment.arrays
        groups = Groups(arrays["classes"].astype(np.int64))
        reference, labels = arrays["reference"].astype(np.float32), arrays["labels"].astype(np.int64)
        width, members = float(arrays["squared_width"][0]), groups.members(labels)
        kernel = np.exp(-_squared(reference, reference) / (2.0 * width))
        np.fill_diagonal(kernel, 0.0)  # a row is not compared with itself
        inside = (members > 0).T
        sizes = inside.sum(axis=0)
        toward = kernel @ members.T * (sizes / np.maximum(sizes - inside, 1))  # (R, G) mean kernel to a group's others
        between = members @ toward
        power = _power(kernel, toward, between, members)
        single = members.astype(np.float32)
        return _Working(self.window, reference, groups, width, single, (between + between.T) / 2.0, power)


@dataclass(frozen=True, eq=False)
class _Working:
    """between: (G, G) mean kernel of two groups; power: (G, G) mean square of the centred kernel."""

    window: int
    reference: Array
    groups: Groups
    width: float
    members: Array
    between: Array
    power: Array

    def judge_window(self, recent: Recent) -> float:
        """-> the statistic."""
        rows, group = recent.embeddings, self.groups.at(recent.labels)
        kernel = np.exp(-_squared(rows, rows) / (2.0 * self.width))
        toward = (_kernel(rows, self.reference, self.width) @ self.members.T).astype(np.float64)  # (N, G)
        pairs = np.ix_(group, group)
        across = toward[:, group]
        centred = kernel - across - across.T + self.between[pairs]
        power = self.power[pairs]
        off = ~np.eye(len(rows), dtype=np.bool_)
        return max(LEAST, float(centred[off].sum() / np.sqrt(2.0 * power[off].sum() + _TINY)))


def _power(kernel: Array, toward: Array, between: Array, members: Array) -> Array:
    """(G, G) the mean over clean pairs of two groups of the centred kernel, squared."""
    power = np.zeros(between.shape)
    for one in range(len(between)):
        for other in range(one, len(between)):
            rows, columns = members[one] > 0, members[other] > 0
            block = kernel[np.ix_(rows, columns)] - toward[rows, other][:, None] - toward[columns, one][None]
            off = np.flatnonzero(rows)[:, None] != np.flatnonzero(columns)[None]
            power[one, other] = power[other, one] = ((block + between[one, other])[off] ** 2).mean()
    return power


def _kernel(one: Array, others: Array, width: float) -> Array:
    """(N, E), (R, E) of length 1 -> (N, R) float32: many, so in single precision."""
    found = one.astype(np.float32) @ others.T
    np.minimum(found, 1.0, out=found)
    found -= 1.0
    found *= np.float32(1.0 / width)
    return np.asarray(np.exp(found, out=found))


def _squared(one: Array, others: Array) -> Array:
    """(N, E), (R, E) of length 1 -> (N, R) squared distances."""
    return np.asarray(np.maximum(2.0 - 2.0 * one.astype(np.float64) @ others.astype(np.float64).T, 0.0))
