"""Input statistics: levels, extremes and roughness that clean inputs do not have, without any network.

Two views of the same statistics, the more alarming one counts: how far they lie from those of clean inputs
(Mahalanobis distance: uniform, black, saturated inputs), and how far in the direction in which noise moves them
(Fisher's linear discriminant, learned at `guard fit` from clean inputs with random signs of 1 and 8 levels of 255
added: dense perturbations, which are rougher than photographs and rough in each colour on its own).

Source:  Fisher 1936 (discriminant); Immerkaer 1996 (fast noise estimation), Fridrich, Kodovsky 2012 (residuals of
         steganalysis; here a few energies instead of their co-occurrences); the choice is this project's.
Answers: gross anomalies; dense linf perturbations of photographs, transferred or not. Known bypass: smooth, sparse or
         small perturbations (C&W, DeepFool); an attacker who penalises roughness. Noisy clean inputs drown the signal.
Args:    x: (N, H, W, C) of at least 4 x 4, or (N, D), unit form. Learns from at most 2,000 clean rows.
Returns: (N,) standard deviations of clean inputs, about 0 for them; higher = more suspicious.
Cost:    about 0.07 ms (28x28), 0.1 ms (32x32x3), 4 ms (224x224x3) a row of CPU, no network, no upstream row.
         Arrays: some KB; vectors: at most 2 MB.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from guard.detectors._statistics import IMAGES, statistics_of
from guard.features import FEWEST_ROWS, whitening_of
from guard.registry import register
from guard.types import Array, Equipment, Material

_MOST_ROWS = 2000
_WIDEST = 512
_CHUNK_VALUES = 4_000_000
_NOISES = (1 / 255, 8 / 255)
_LOADING = 1e-5  # a statistic that never varies is held to about 0.003
_HANDICAP = 1.0  # of the distance, in standard deviations: its tail is heavier, and it is for gross anomalies


@register("detector", "input_statistics")
@dataclass(frozen=True)
class InputStatistics:
    """It has no options: what is usual is learned."""

    def learn(self, material: Material) -> Mapping[str, Array]:
        """Mean and covariance of the statistics, and where noise moves them. Raises ValueError for too few rows."""
        if len(material.x) < FEWEST_ROWS:
            raise ValueError(f"learns from at least {FEWEST_ROWS} clean rows, and there are {len(material.x)}")
        rng = np.random.default_rng(material.seed)
        rows = np.sort(rng.permutation(len(material.x))[:_MOST_ROWS])
        arrays = {} if material.x.ndim == IMAGES else _usual_vector(material.x[rows[::2]])
        if material.x.ndim != IMAGES:
            rows = rows[1::2]  # a covariance flatters the rows that it was made from
        clean = _statistics(material.x, rows, arrays)
        mean = clean.mean(axis=0)
        noisy = [_statistics(material.x, rows, arrays, noise, rng) for noise in _NOISES]
        towards_noise = np.stack([_discriminant(clean - mean, other - mean) for other in noisy], axis=1)
        arrays |= {"mean": mean, "scatter": _inverse_root(clean - mean), "towards_noise": towards_noise}
        parts = _parts(clean, arrays)
        return arrays | {"parts_mean": parts.mean(axis=0), "parts_spread": np.maximum(parts.std(axis=0), 1e-6)}

    def equip(self, equipment: Equipment) -> "_Working":
        """The detector at work."""
        return _Working(equipment.arrays)


@dataclass(frozen=True, eq=False)
class _Working:
    arrays: Mapping[str, Array]

    def score(self, x: Array) -> Array:
        """(N, ...) unit form -> (N,). Raises ValueError for inputs of another kind than the clean ones'."""
        statistics = statistics_of(x, self.arrays)
        if statistics.shape[1] != len(self.arrays["mean"]):
            raise ValueError("these inputs have other channels than the clean ones had")
        parts = (_parts(statistics, self.arrays) - self.arrays["parts_mean"]) / self.arrays["parts_spread"]
        parts[:, 0] -= _HANDICAP
        return np.asarray(parts.max(axis=1))


def _parts(statistics: Array, arrays: Mapping[str, Array]) -> Array:
    """(N, S) -> (N, 1 + noises): the logarithm of the distance, and the discriminants."""
    gaps = statistics - arrays["mean"]
    distance = ((gaps @ arrays["scatter"]) ** 2).sum(axis=1)
    return np.concatenate([np.log1p(distance)[:, None], gaps @ arrays["towards_noise"]], axis=1)


def _statistics(
    x: Array, rows: Array, arrays: Mapping[str, Array], noise: float = 0.0, rng: np.random.Generator | None = None
) -> Array:
    """Of these rows, with random signs of this size added."""
    found = []
    for some in _chunks(rows, x[0].size):
        part = x[some]
        if rng is not None:
            signs = rng.integers(0, 2, part.shape, dtype=np.int8) * np.float32(2) - np.float32(1)
            part = np.clip(part + np.float32(noise) * signs, 0, 1)
        found.append(statistics_of(part, arrays))
    return np.concatenate(found)


def _chunks(rows: Array, size: int) -> Iterator[Array]:
    step = max(1, _CHUNK_VALUES // size)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _covariance(centred: Array) -> Array:
    covariance = np.asarray(centred.T @ centred / len(centred))
    return np.asarray(covariance + 1e-3 * np.diag(np.diag(covariance)) + _LOADING * np.eye(len(covariance)))


def _inverse_root(centred: Array) -> Array:
    return np.asarray(np.linalg.cholesky(np.linalg.inv(_covariance(centred))))


def _discriminant(clean: Array, noisy: Array) -> Array:
    """Both less the clean ones' mean -> the direction that tells them apart best."""
    shift = noisy.mean(axis=0)
    return np.asarray(np.linalg.solve((_covariance(clean) + _covariance(noisy - shift)) / 2, shift))


def _usual_vector(x: Array) -> dict[str, Array]:
    """Centre, spread, and up to so many features the whole covariance."""
    rows = x.astype(np.float64)
    centre = rows.mean(axis=0)
    usual = {"centre": centre, "spread": np.maximum(rows.std(axis=0), 1e-2)}
    return usual if x.shape[1] > _WIDEST else usual | {"whitening": whitening_of(rows - centre)}
