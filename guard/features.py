"""What detectors on the auxiliary network's features share: the features, who belongs to which class, covariances.

Features come as (N, F) float64, F at most 512: wider ones go through one fixed random projection, which keeps
distances (Johnson, Lindenstrauss 1984). All functions are deterministic in what they are given.
"""

from collections.abc import Mapping

import numpy as np

from guard.types import Array, Material, Network

AUXILIARY = "auxiliary"
FEWEST_ROWS = 16
_WIDEST = 512
_TINY = 1e-12


def logits_of(network: Network, x: Array) -> Array:
    """(N, ...) unit form -> (N, C) float64 logits. Raises ValueError where the network has none."""
    return _output(network(x), "logits")


def features_of(network: Network, x: Array, arrays: Mapping[str, Array]) -> Array:
    """(N, ...) unit form -> (N, F) float64, projected where `arrays` say so. Raises ValueError."""
    raw = _output(network(x), "features")
    return np.asarray(raw @ arrays["projection"]) if "projection" in arrays else raw


def at_work(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What was learned, in float64 once and not at every query."""
    return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}


def learn_features(material: Material, most: int) -> tuple[Array, Array, dict[str, Array]]:
    """Features and labels of at most so many clean rows, classes in turn, and the arrays that `features_of` needs.

    A label is the served model's answer, or the auxiliary's where the model answers with labels only.
    Raises ValueError where the rows are too few.
    """
    if len(material.x) < FEWEST_ROWS:
        raise ValueError(f"learns from at least {FEWEST_ROWS} clean rows, and there are {len(material.x)}")
    network = material.networks[AUXILIARY]
    answers = logits_of(network, material.x) if material.probs is None else material.probs
    rows = in_turn(answers.argmax(axis=1), most, material.seed)
    raw = _output(network(material.x[rows]), "features")
    arrays = {}
    if raw.shape[1] > _WIDEST:
        draw = np.random.default_rng(material.seed).standard_normal((raw.shape[1], _WIDEST))
        arrays["projection"] = (draw / np.sqrt(_WIDEST)).astype(np.float32)
        raw = raw @ arrays["projection"].astype(np.float64)
    return raw, answers.argmax(axis=1)[rows], arrays


def _output(answer: Mapping[str, Array], name: str) -> Array:
    if name not in answer:
        raise ValueError(f"the auxiliary network has no output {name!r}")
    return np.asarray(answer[name], dtype=np.float64).reshape(len(answer[name]), -1)


def in_turn(labels: Array, most: int, seed: int) -> Array:
    """At most so many rows, drawn from one class after the other until they run out, in ascending order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        turn[own] = np.arange(len(own))
    return np.sort(order[np.argsort(turn[order], kind="stable")][:most])


def squared_distances(one: Array, others: Array) -> Array:
    """(N, F), (R, F) -> (N, R) squared Euclidean distances; those lost to rounding become a small positive number."""
    lengths = (one**2).sum(axis=1)[:, None], (others**2).sum(axis=1)[None]
    least = 1e-9 * (lengths[0] + lengths[1]) + _TINY
    return np.asarray(np.maximum(lengths[0] + lengths[1] - 2 * one @ others.T, least))


def whitening_of(centred: Array) -> Array:
    """(N, F) rows around their mean -> (F, F) W with |row @ W| the Mahalanobis distance.

    The covariance is shrunk towards a multiple of the identity by Ledoit and Wolf's closed form (2004, "A
    well-conditioned estimator for large-dimensional covariance matrices"), so it has an inverse for few rows, too.
    """
    rows, width = centred.shape
    covariance = centred.T @ centred / rows
    level = np.trace(covariance) / width
    spread = ((covariance - level * np.eye(width)) ** 2).sum()
    noise = (((centred**2).sum(axis=1) ** 2).sum() / rows - (covariance**2).sum()) / rows
    share = float(np.clip(noise / spread, 0.0, 1.0)) if spread > 0 else 1.0
    shrunk = (1 - share) * covariance + share * level * np.eye(width)
    loading = 1e-6 * level + _TINY  # what no row varies in stays finite
    return np.asarray(np.linalg.cholesky(np.linalg.inv(shrunk + loading * np.eye(width))))
