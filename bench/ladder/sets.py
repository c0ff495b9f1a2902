"""What thieves send: (N, ...) as the victim takes it, in [0, 1], drawn with a seed.

    photos   random squares of the twenty photographs of `adversary.data.photos`, small and large, half of them turned
             left to right: natural, in colour, and not the victim's kind. As single images teach a great deal (Asano,
             Saeed 2021, arXiv:2112.00725), this is the better foreign set of the two
    foreign  images of another data set (Fashion-MNIST in grey for CIFAR-10, CIFAR-10 in grey for MNIST)
    noise    smooth random fields with grain on them: synthetic, and made without the victim
    own      images of the victim's kind, that neither the victim nor the profile has learned from

What is synthetic and made with the victim's answers is an attack of its own: `bench.ladder.making`.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from adversary.attack import Array
from adversary.data import photos
from adversary.data.foreign import fit
from bench.monitors import thefts
from bench.monitors.ground import ground

_SMALLEST = 48  # pixels of a photograph that make a side
_SIDES = (2, 3, 4, 6, 8)
_HALF = 0.5
JITTER = 0.02
"""Standard deviation of the noise on copies of a query: more than the keyed noise's digest leaves out."""


def _photos(data: str, n: int, rng: np.random.Generator) -> Array:
    shape = ground(data).unit(ground(data).thief.images[:1]).shape[1:]
    images = [np.asarray(image) for image in photos.load()[0]]
    made = np.empty((n, shape[1], shape[2], 3), np.uint8)
    for out in made:
        image = images[rng.integers(len(images))]
        side = int(np.exp(rng.uniform(np.log(_SMALLEST), np.log(min(image.shape[:2])))))
        top, left = (int(rng.integers(length - side + 1)) for length in image.shape[:2])
        cut = cv2.resize(
            image[top : top + side, left : left + side], (shape[2], shape[1]), interpolation=cv2.INTER_AREA
        )
        out[:] = cut[:, ::-1] if rng.random() < _HALF else cut
    return fit(made, shape)


def _foreign(data: str, n: int, rng: np.random.Generator) -> Array:
    on = ground(data)
    images = on.other().images
    return fit(images[rng.permutation(len(images))[:n]], on.unit(on.thief.images[:1]).shape[1:])


def _own(data: str, n: int, rng: np.random.Generator) -> Array:
    x = thefts.pool(data, "own")
    return np.asarray(x[rng.permutation(len(x))[:n]])


def _noise(data: str, n: int, rng: np.random.Generator) -> Array:
    channels, height, width = ground(data).unit(ground(data).thief.images[:1]).shape[1:]
    made = np.zeros((n, channels, height, width), np.float32)
    for i in range(n):
        out = made[i]
        for side in rng.choice(_SIDES, 2, replace=False):
            coarse = rng.standard_normal((side, side, channels)).astype(np.float32)
            fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
            out = out + np.moveaxis(fine, 2, 0)
        smooth = 1.0 / (1.0 + np.exp(-(out * np.exp(rng.normal(0.0, 0.5)) + rng.normal(0.0, 0.5))))
        made[i] = smooth + rng.normal(0.0, 0.05, out.shape) * rng.random()
    return np.clip(made, 0.0, 1.0)


_MAKERS: Mapping[str, Callable[[str, int, np.random.Generator], Array]] = {
    "photos": _photos, "foreign": _foreign, "noise": _noise, "own": _own,
}  # fmt: skip
SETS = tuple(_MAKERS)


def queries(data: str, which: str, n: int, seed: int, repeats: int = 1) -> Array:
    """n rows, fewer where there are no more; with repeats each image is sent so often in a row, noise on each copy."""
    rng = np.random.default_rng([seed, SETS.index(which), 5])
    x = np.asarray(_MAKERS[which](data, n // repeats, rng), np.float32)
    if repeats == 1:
        return x
    copies = np.repeat(x, repeats, axis=0)
    copies += rng.normal(0.0, JITTER, copies.shape).astype(np.float32)
    return np.clip(copies, 0.0, 1.0)
