"""Between numpy rows and torch: what white-box attacks that work in torch share."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adversary.attack import Array, Refused
from adversary.gradients import BATCH, Model
from adversary.images import channel_axis

CLEAR = 1e-3  # the least margin that counts as won: another runtime's rounding must not undo it

_COLOUR = 3  # axes of an image with channels


def rows(x: Array) -> Tensor:
    """(N, ...) -> float32, never sharing memory with x."""
    return torch.from_numpy(np.array(x, np.float32))


def classes(y: Array) -> Tensor:
    """(N,) -> int64."""
    return torch.from_numpy(np.array(y, np.int64))


def each(values: Tensor, x: Tensor) -> Tensor:
    """(N,) -> the same, broadcastable over the rows of x."""
    return values.reshape(-1, *([1] * (x.ndim - 1)))


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """(N, C), (N,) -> the best other logit less the label's own: above 0 where the model is wrong."""
    own = functional.one_hot(y, logits.shape[1]).bool()
    others: Tensor = logits.masked_fill(own, -torch.inf).amax(1)
    return others - logits.gather(1, y[:, None])[:, 0]


def on_planes(model: Model, shape: tuple[int, ...]) -> Model:
    """The model, fed with (N, C, H, W) whatever the layout of its own images of `shape` (adversary.images.planes)."""
    if len(shape) < _COLOUR:
        return lambda x: model(x[:, 0])
    axis = 1 + channel_axis(shape)
    return lambda x: model(x.movedim(1, axis))


def runner_up(model: Model, x: Array, y: Array) -> Array:
    """(N, ...), (N,) -> each row's most probable wrong class: the nearest target."""
    found = []
    with torch.no_grad():
        for part in parts(len(x)):
            logits = model(rows(x[part]))
            logits.scatter_(1, classes(y[part])[:, None], -torch.inf)
            found.append(logits.argmax(1).numpy())
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def parts(n: int) -> list[slice]:
    """Slices of at most BATCH rows."""
    return [slice(start, start + BATCH) for start in range(0, n, BATCH)]


def batched(craft: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Array, y: Array) -> tuple[Array, Array]:
    """Run craft(x, y) -> (x_adv, queries) on batches; (N, ...), (N,) -> float32 (N, ...) in [0, 1], (N,)."""
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    for part in parts(len(x)):
        done, cost = craft(rows(x[part]), classes(y[part]))
        x_adv[part], queries[part] = done.detach().clamp(0.0, 1.0).numpy(), cost.numpy()
    return x_adv, queries


class LocalOracle:
    """A torch model in this process behind the face of an endpoint: for attacks by queries on a model one has."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def probabilities(self, x: Array) -> Array | Refused:
        """(N, ...) -> (N, C) float64."""
        with torch.no_grad():
            answers = [torch.softmax(self._model(rows(x[part])).double(), 1).numpy() for part in parts(len(x))]
        return np.concatenate(answers)

    def labels(self, x: Array) -> Array:
        """(N, ...) -> (N,) int64."""
        answer = self.probabilities(x)
        return np.asarray(np.asarray(answer).argmax(1), np.int64)
