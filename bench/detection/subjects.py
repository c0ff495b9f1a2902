"""What is attacked: a victim, test images it labels rightly, and what the attacker has of his own.

Attacks take test images from the first half of the test split, false alarms are counted on the second half, profiles
are fitted on the `clean` split. Nothing is chosen by looking at either half.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data import cifar10, mnist
from adversary.data.cache import sha256
from adversary.gradients import one_thread, predict
from adversary.victims import cifar10 as cifar10_victim
from adversary.victims import mnist as mnist_victim

_HALF = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A victim and its data, all images (N, C, H, W) float32 in [0, 1] as the model takes them.

    onnx:          the file that is served; `model` is the same network in torch.
    hunted_x, _y:  test images that the bare model labels rightly: what attacks start from.
    quiet_x, _y:   other test images, for false alarms; rightly labelled or not.
    clean_x, _y:   what the profile is fitted on, in the split's order; its labels are for the attacker's surrogate.
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
    classes: int
    source: str
    accuracy: float

    @property
    def sha256(self) -> str:
        """Of the served file."""
        return sha256(self.onnx.read_bytes())


def _halved(name: str, onnx: Path, model: Any, unit: Callable[[Array], Array], data: Any) -> Subject:
    x, y = unit(data.test.images), data.test.labels
    with one_thread():
        right = predict(model, x) == y
    half = min(_HALF, len(x) // 2)
    hunted = np.flatnonzero(right[:half])
    return Subject(
        name, onnx, model, x[hunted], y[hunted], x[half:], y[half:], unit(data.clean.images), data.clean.labels,
        int(y.max()) + 1, data.source, float(right.mean()),
    )  # fmt: skip


def _mnist() -> Subject:
    path = mnist_victim.CHECKPOINT
    return _halved("mnist", path, mnist_victim.load(path), mnist.unit, mnist.load())


def _cifar10() -> Subject:
    path = cifar10_victim.CHECKPOINT
    return _halved("cifar10", path, cifar10_victim.load(path), cifar10.unit, cifar10.load())


SUBJECTS: dict[str, Callable[[], Subject]] = {"mnist": _mnist, "cifar10": _cifar10}


@lru_cache(maxsize=4)
def subject(name: str) -> Subject:
    """By its name; a process loads each once."""
    return SUBJECTS[name]()
