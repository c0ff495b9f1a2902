"""The networks of the profiles that the bench fits, made once and kept: by `python -m bench.profiles`.

They learn from what the victim has learned and, where there is one, from the pool: never from the clean split, which
calibrates profiles, and never from the test split. Those that lie beside this file were made by this recipe: another
processor, or another rounding of the answers, gives other bytes and much the same network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data import cache, cifar10, fashion, mnist
from adversary.victims import cifar10 as cifar10_victim
from adversary.victims import fashion as fashion_victim
from adversary.victims import mnist as mnist_victim
from guard import learning, networks
from guard.types import Material

BESIDE = Path(__file__).parent
CLASSES = 10
SEED = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """A victim and what its networks learn from and are measured on: images (N, H, W, C) uint8."""

    victim: Path
    load: Callable[[], tuple[Array, Array]]


def _grey(load: Callable[[], Any]) -> tuple[Array, Array]:
    data = load()
    return data.learn.images[..., None], data.clean.images[..., None]


def _cifar10() -> tuple[Array, Array]:
    data = cifar10.load()
    return np.concatenate([data.learn.images, data.pool.images]), data.clean.images


SUBJECTS = {
    "mnist": Subject(mnist_victim.CHECKPOINT, lambda: _grey(mnist.load)),
    "fashion": Subject(fashion_victim.CHECKPOINT, lambda: _grey(fashion.load)),
    "cifar10": Subject(cifar10_victim.CHECKPOINT, _cifar10),
}


def place(subject: str, network: str) -> Path:
    """Where a network is kept."""
    return cache.root() / "bench-networks" / subject / f"{network}.onnx"


def kept(subject: str, network: str) -> Path:
    """The file in the cache, or the one beside this file. Raises FileNotFoundError."""
    for path in (place(subject, network), BESIDE / f"{subject}_{network}.onnx"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"there is no {network} for {subject}: python -m bench.profiles {subject}")


def unit(images: Array) -> Array:
    """(N, H, W, C) uint8 -> unit form."""
    return np.asarray(images, np.float32) / np.float32(255.0)


def answers(victim: Path, x: Array) -> Array:
    """(N, H, W, C) unit form -> the victim's probabilities, (N, classes)."""
    network = networks.load(victim)
    (name, _), *_ = network.outputs
    logits = network(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))[name].astype(np.float64)
    probs = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(probs / probs.sum(1, keepdims=True), np.float32)


def material(subject: str, seed: int = SEED) -> Material:
    """What the subject's networks learn from."""
    chosen = SUBJECTS[subject]
    x = unit(chosen.load()[0])
    return Material(x, answers(chosen.victim, x), CLASSES, {}, seed)


def make(
    subject: str,
    names: tuple[str, ...],
    tell: learning.Tell,
    *,
    seed: int = SEED,
    given: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """Train the named networks. given: those that exist already, by name."""
    own, raw = material(subject, seed), dict(given or {})
    for name in names:
        raw[name] = learning.train(name, own, raw, tell)
    return {name: raw[name] for name in names}


def measured(subject: str, raw: Mapping[str, bytes]) -> dict[str, float]:
    """On the clean split: agreement with the victim (auxiliary), answers kept (denoiser), mean error (autoencoder)."""
    chosen, found = SUBJECTS[subject], dict[str, float]()
    x = unit(chosen.load()[1])
    labels = answers(chosen.victim, x).argmax(1)
    for name, file in raw.items():
        given = networks.load(file)(x)
        if name == "auxiliary":
            found["agreement with the victim"] = float((given["logits"].argmax(1) == labels).mean())
        else:
            kept_labels = answers(chosen.victim, given["x"]).argmax(1) == labels
            found[f"the victim's answers kept through the {name}"] = float(kept_labels.mean())
            found[f"mean absolute change by the {name}"] = float(np.abs(given["x"] - x).mean())
    return found
