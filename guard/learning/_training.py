"""What the making of every network has in common: one thread, one seed, a one-cycle rate, averaged weights."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from guard.learning import Tell
from guard.types import Array

Module = TypeVar("Module", bound=nn.Module)
Rows = NDArray[np.int64]
IMAGE_RANK = 4
FEWEST_ROWS = 200
_WARM = 20.0  # steps; an average over fewer than are done so far
_LARGE = 64 * 64  # pixels
_TOLD = 10  # steps between two words


@dataclass(frozen=True, slots=True)
class Pace:
    """How long and how fast a network learns.

    epochs:    over all rows, but at least `least` and at most `most` steps.
    rate:      the largest of the one cycle.
    average:   share that the averaged weights keep at each step; 0: the last weights are taken.
    """

    epochs: int
    least: int
    most: int
    batch: int
    rate: float
    weight_decay: float = 5e-4
    average: float = 0.998
    adam: bool = False

    def steps(self, rows: int) -> int:
        """How many there are."""
        return min(max(self.epochs * (rows // min(self.batch, rows)), self.least), self.most)


def suited(pace: Pace, shape: Sequence[int], batch: int = 32) -> Pace:
    """The same for images larger than 64x64: fewer at a time and less often, or it would take hours."""
    if len(shape) + 1 != IMAGE_RANK or shape[0] * shape[1] <= _LARGE:
        return pace
    return replace(pace, batch=batch, least=pace.least // 4, most=pace.most // 4)


@contextmanager
def seeded(seed: int) -> Iterator[np.random.Generator]:
    """Torch on one thread, with this seed and nobody else's; and a generator of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield np.random.default_rng(seed)
    finally:
        torch.set_num_threads(threads)


def learn(
    model: Module,
    backward: Callable[[Rows], None],
    pace: Pace,
    count: int,
    *,
    rng: np.random.Generator,
    tell: Tell,
    what: str,
) -> Module:
    """Let `backward` leave gradients for some rows out of `count`, step, and again. -> The averaged network.

    The model is changed, too: it is what `backward` works with.
    """
    optimizer = _optimizer(model, pace)
    total, batch = pace.steps(count), min(pace.batch, count)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, pace.rate, total_steps=total)
    averaged, order = copy.deepcopy(model), _batches(count, batch, rng)
    model.train()
    for step in range(total):
        optimizer.zero_grad()
        backward(next(order))
        optimizer.step()
        schedule.step()
        _average(averaged, model, min(pace.average, step / (step + _WARM)))
        if step % _TOLD == 0:
            tell(what, step, total)
    tell(what, total, total)
    return averaged.eval()


def _optimizer(model: nn.Module, pace: Pace) -> torch.optim.Optimizer:
    if pace.adam:
        return torch.optim.Adam(model.parameters(), lr=pace.rate)
    return torch.optim.SGD(
        model.parameters(), lr=pace.rate, momentum=0.9, weight_decay=pace.weight_decay, nesterov=True
    )


def _batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[Rows]:
    while True:
        yield from rng.permutation(count)[: count // batch * batch].reshape(-1, batch)


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    for mine, new in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.mul_(keep).add_(new, alpha=1.0 - keep)
        else:
            mine.copy_(new)


def tensor(x: Array) -> Tensor:
    """Float32, for torch."""
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


def moved(x: Array, rng: np.random.Generator) -> Array:
    """Each image on its own: shifted by up to an eighth of its side, and half of those in colour turned left to right.

    Vectors stay as they are. The gap is filled with the mirror image in colour, with the edge in grey.
    """
    if x.ndim != IMAGE_RANK:
        return x
    (n, height, width, _), colour = x.shape, x.shape[-1] > 1
    up, side = (max(1, size // (8 if colour else 14)) for size in (height, width))
    wide = np.pad(x, ((0, 0), (up, up), (side, side), (0, 0)), "reflect" if colour else "edge")
    rows = rng.integers(0, 2 * up + 1, (n, 1)) + np.arange(height)
    columns = rng.integers(0, 2 * side + 1, (n, 1)) + np.arange(width)
    turned = rng.random(n) < (0.5 if colour else 0.0)
    columns[turned] = columns[turned, ::-1]
    return np.asarray(wide[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]])


def quick(*, images: bool) -> Any:
    """A context in which convolutions run in bfloat16 where the processor has that: here they take 0.6 of the time."""
    able = bool(torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=images and able)


def in_parts(function: Callable[[Tensor], Tensor], x: Array, size: int = 256) -> Array:
    """A network's answers on many rows, without gradients."""
    with torch.no_grad():
        return np.concatenate([function(tensor(x[i : i + size])).numpy() for i in range(0, len(x), size)])
