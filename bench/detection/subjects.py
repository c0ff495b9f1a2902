"""What is attacked: a victim, test images it labels rightly, and what the attacker has of his own.

Attacks take test images from the first half of the test split, false alarms are counted on the second half. Profiles
are calibrated on the `clean` split, and learn from images before it. Nothing is chosen by looking at either half of the
test split. The photographs are twenty: ten, and crops of them, for the profile, the others for all the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data import cifar10, fashion, mnist, photos
from adversary.data.cache import sha256
from adversary.data.split import Split
from adversary.gradients import one_thread, predict
from adversary.victims import cifar10 as cifar10_victim
from adversary.victims import efficientnet
from adversary.victims import fashion as fashion_victim
from adversary.victims import mnist as mnist_victim

_HALF = 5_000
_LEARN = 10_000
_PHOTOS = 10  # for the profile; the others are attacked
_CROPS = {"clean": 60, "learn": 15, "hunted": 2, "quiet": 20}  # of each photograph


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A victim and its data, all images (N, C, H, W) float32 in [0, 1] as the model takes them.

    onnx:          the file that is served; `model` is the same network in torch.
    hunted_x, _y:  test images that the bare model labels rightly: what attacks start from.
    quiet_x, _y:   other test images, for false alarms; rightly labelled or not.
    clean_x, _y:   what the profile is calibrated on, in the split's order; its labels are for the attacker's surrogate.
    learn_x:       what the profile's stages learn from.
    accuracy:      of the bare model, on the whole test split.
    """

    name: str
    onnx: Path
    model: Any
    hunted_x: Array
    hunted_y: Array
    quiet_x: Array
    quiet_y: Array
    clean_x: Array
    clean_y: Array
    learn_x: Array
    classes: int
    source: str
    accuracy: float

    @property
    def sha256(self) -> str:
        """Of the served file."""
        return sha256(self.onnx.read_bytes())


def _halved(name: str, onnx: Path, model: Any, unit: Callable[[Array], Array], data: Any, learn: Split) -> Subject:
    x, y = unit(data.test.images), data.test.labels
    with one_thread():
        right = predict(model, x) == y
    half = min(_HALF, len(x) // 2)
    hunted = np.flatnonzero(right[:half])
    return Subject(
        name, onnx, model, x[hunted], y[hunted], x[half:], y[half:], unit(data.clean.images), data.clean.labels,
        unit(learn.images[-_LEARN:]), int(y.max()) + 1, data.source, float(right.mean()),
    )  # fmt: skip


def _mnist() -> Subject:
    path, data = mnist_victim.CHECKPOINT, mnist.load()
    return _halved("mnist", path, mnist_victim.load(path), mnist.unit, data, data.learn)


def _fashion() -> Subject:
    path, data = fashion_victim.CHECKPOINT, fashion.load()
    return _halved("fashion", path, fashion_victim.load(path), mnist.unit, data, data.learn)


def _cifar10() -> Subject:
    path, data = cifar10_victim.CHECKPOINT, cifar10.load()
    return _halved("cifar10", path, cifar10_victim.load(path), cifar10.unit, data, data.pool)


def _photos() -> Subject:
    images, labels = photos.load()
    model, own, others = efficientnet.load(), slice(_PHOTOS), slice(_PHOTOS, None)
    parts = {
        name: photos.crops(images[rows], labels[rows], count, seed)
        for seed, (name, count, rows) in enumerate(
            (name, count, own if name in {"clean", "learn"} else others) for name, count in _CROPS.items()
        )
    }
    middle = photos.centred(images, labels)
    test = Split(
        np.concatenate([middle.images[others], parts["hunted"].images]),
        np.concatenate([middle.labels[others], parts["hunted"].labels]),
    )
    x = cifar10.unit(test.images)
    with one_thread():
        right = predict(model, x) == test.labels
        accuracy = float((predict(model, cifar10.unit(middle.images)) == labels).mean())
    return Subject(
        "photos", efficientnet.onnx_file(), model, x[right], test.labels[right], cifar10.unit(parts["quiet"].images),
        parts["quiet"].labels, cifar10.unit(parts["clean"].images), parts["clean"].labels,
        cifar10.unit(parts["learn"].images), efficientnet.CLASSES, f"PyPI {photos.WHEEL}", accuracy,
    )  # fmt: skip


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "mnist": _mnist, "fashion": _fashion, "cifar10": _cifar10, "photos": _photos,
}  # fmt: skip


@lru_cache(maxsize=2)
def subject(name: str) -> Subject:
    """By its name; a process loads each once."""
    return SUBJECTS[name]()
