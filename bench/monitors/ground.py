"""What is asked: a victim in ONNX Runtime on one thread, and who gets which images.

Attacks start from rightly labelled images of the first half of the test split; benign callers ask about the second
half, batch jobs about what the victim learned from. Profiles are fitted on the `clean` split. Choices are made by
looking at attacks on the `clean` split (`bench.monitors.traces`), never at either half of the test split.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from adversary import victims
from adversary.attack import Array
from adversary.data import cifar10, fashion, mnist
from adversary.data.cache import root, sha256
from adversary.data.split import Split

_HALF = 5_000
_LEARN = 10_000  # the last of what the victim may learn from is what the profile's stages learn from
_ROWS_A_CALL = 256
_FILES = {"mnist": "mnist_cnn.onnx", "cifar10": "cifar10_resnet.onnx"}
DATA = tuple(_FILES)


def home() -> Path:
    """Where this bench keeps what it made."""
    return root() / "bench-monitors"


class Model:
    """A served file, asked in this process. Travels between processes as its path."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def logits(self, x: Array) -> Array:
        """(N, ...) float32 in [0, 1] -> (N, C) float32."""
        parts = [
            self._session.run(None, {self._input: np.ascontiguousarray(x[at : at + _ROWS_A_CALL], np.float32)})[0]
            for at in range(0, len(x), _ROWS_A_CALL)
        ]
        return np.concatenate(parts)

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,) int64."""
        return np.asarray(self.logits(x).argmax(axis=1), np.int64)


def softmax(logits: Array) -> Array:
    """(N, C) -> rows of float64 that sum to 1."""
    high = np.asarray(logits, np.float64)
    high = np.exp(high - high.max(axis=1, keepdims=True))
    return np.asarray(high / high.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Ground:
    """A victim and its data; images are (N, C, H, W) float32 in [0, 1], as the model takes them.

    learned:  what the victim learned from, but for `learn`, from which the profile's stages learn.
    thief:    images of the same kind that neither has learned from.
    other:    images of another data set.
    """

    name: str
    onnx: Path
    unit: Callable[[Any], Any]
    test: Split
    clean: Split
    learned: Split
    learn: Split
    thief: Split
    other: Callable[[], Split]
    source: str
    classes: int = 10

    @cached_property
    def model(self) -> Model:
        """The victim."""
        return Model(self.onnx)

    @cached_property
    def sha256(self) -> str:
        """Of the served file."""
        return sha256(self.onnx.read_bytes())

    def rightly(self, split: Split, n: int, seed: int) -> tuple[Array, Array]:
        """n images of a split that the victim labels rightly, drawn with a seed."""
        order = np.random.default_rng(seed).permutation(len(split))
        some = np.sort(order[: min(len(split), 2 * n + 20)])
        x, y = self.unit(split.images[some]), split.labels[some]
        right = np.flatnonzero(self.model.labels(x) == y)[:n]
        if len(right) < n:
            raise ValueError(f"{self.name}: only {len(right)} of {len(some)} images are labelled rightly, {n} wanted")
        return x[right], y[right]

    @property
    def hunted(self) -> Split:
        """What attacks start from, once the wrongly labelled are left out."""
        return self.test.part(slice(0, min(_HALF, len(self.test) // 2)))

    @property
    def quiet(self) -> Split:
        """What benign callers ask about."""
        return self.test.part(slice(min(_HALF, len(self.test) // 2), None))


def _mnist() -> Ground:
    data = mnist.load()
    learned = data.learn.part(slice(0, -_LEARN))
    return Ground(
        "mnist", _file("mnist"), mnist.unit, data.test, data.clean, learned,
        data.learn.part(slice(-_LEARN, None)), data.test.part(slice(0, min(_HALF, len(data.test) // 2))),
        lambda: cifar10.load().pool, data.source,
    )  # fmt: skip


def _cifar10() -> Ground:
    data = cifar10.load()
    return Ground(
        "cifar10", _file("cifar10"), cifar10.unit, data.test, data.clean, data.learn,
        data.pool.part(slice(-_LEARN, None)), data.pool.part(slice(0, -_LEARN)),
        lambda: fashion.load().learn, data.source,
    )  # fmt: skip


def _file(name: str) -> Path:
    return Path(victims.__file__ or "").with_name(_FILES[name])


_GROUNDS: Mapping[str, Callable[[], Ground]] = {"mnist": _mnist, "cifar10": _cifar10}


@lru_cache(maxsize=2)
def ground(name: str) -> Ground:
    """By its name; a process loads each once."""
    return _GROUNDS[name]()
