"""Real images of three sizes: test images of MNIST and CIFAR-10, crops of foolbox's twenty photographs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adversary.attack import Array
from adversary.data import cifar10, mnist, photos

NOISE = 8 / 255
LEARN = {"28x28x1": 2000, "32x32x3": 2000, "224x224x3": 300}  # rows that stages learn from
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Of one size, (N, H, W, C) float32 in [0, 1].

    clean: in 8 bits, as they come. noisy: the same with uniform noise of up to 8/255, on no grid: what stages are timed
    on. learn: clean, others. classes: that a model of them answers with.
    """

    name: str
    clean: Array
    noisy: Array
    learn: Array
    classes: int


def of(name: str, pictures: Array, more: Array, classes: int) -> Images:
    """(N, H, W, C) uint8, for what is timed and to learn from."""
    clean, learn = (unit(x) for x in (pictures, more))
    noise = np.random.default_rng(_SEED).uniform(-NOISE, NOISE, clean.shape)
    return Images(name, clean, np.clip(clean + noise, 0, 1).astype(np.float32), learn, classes)


def unit(x: Array) -> Array:
    """Uint8 -> float32 in [0, 1]."""
    return np.asarray(x / np.float32(255), np.float32)


def _mnist(n: int) -> Images:
    data = mnist.load()
    return of("28x28x1", data.test.images[:n, ..., None], data.train.images[: LEARN["28x28x1"], ..., None], 10)


def _cifar10(n: int) -> Images:
    data = cifar10.load()
    return of("32x32x3", data.test.images[:n], data.train.images[: LEARN["32x32x3"]], 10)


def _photographs(n: int) -> Images:
    images, labels = photos.load()
    pictures = photos.crops(images, labels, -(-n // len(images)), seed=_SEED).images
    more = photos.crops(images, labels, LEARN["224x224x3"] // len(images), seed=_SEED + 1).images
    return of("224x224x3", pictures[:n], more, 1000)


SIZES: dict[str, Callable[[int], Images]] = {"28x28x1": _mnist, "32x32x3": _cifar10, "224x224x3": _photographs}
