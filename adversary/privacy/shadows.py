"""Shadow models: networks of the attacker's own, fitted as he supposes the victim was, whose members he knows.

Source: Shokri, Stronati, Song, Shmatikov 2017, arXiv:1610.05820.
Knows:  the task, the kind of network (images: two convolutions and a dense layer, as Shokri et al.'s victims on
        CIFAR-10; vectors: one dense layer), and labelled inputs that the victim did not learn from.
Cost:   nothing at the endpoint; half of the attacker's inputs, `epochs` times, a shadow. Seeded, on one thread.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from adversary import surrogate
from adversary.attack import Array
from adversary.extraction import networks
from adversary.extraction.answers import Loot
from adversary.tensors import LocalOracle, rows

_COLOUR = 3
_GREY = 2
_SHOWN = 5000  # what a judge learns from is shown again until it is so much


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """A network behind the face of an endpoint; inside: (N,) which of the attacker's inputs it learned from."""

    oracle: LocalOracle
    inside: Array


def train(x: Array, y: Array, *, count: int, epochs: int, rng: np.random.Generator) -> list[Shadow]:
    """(N, ...), (N,) labelled inputs -> shadows, each fitted on a random half of them."""
    if len(x) < 2:  # noqa: PLR2004 - two halves
        raise ValueError("a shadow model needs labelled inputs of the attacker's own")
    return [_shadow(x, y, epochs, rng) for _ in range(count)]


def _shadow(x: Array, y: Array, epochs: int, rng: np.random.Generator) -> Shadow:
    classes = int(y.max()) + 1
    inside = np.zeros(len(x), bool)
    inside[rng.permutation(len(x))[: len(x) // 2]] = True
    net = network(x.shape[1:], classes, rng)
    networks.learn(net, Loot(x[inside], np.eye(classes)[y[inside]]), rng, epochs=epochs)
    return Shadow(LocalOracle(net), inside)


def network(shape: tuple[int, ...], classes: int, rng: np.random.Generator) -> nn.Module:
    """A new network for inputs of this shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        dense = [nn.Tanh(), nn.Linear(128, classes)]
        if len(shape) not in {_GREY, _COLOUR}:
            return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 128), *dense)
        planes = networks.Planes(shape)
        channels, height, width = planes(torch.zeros(1, *shape)).shape[1:]
        seeing = [
            planes, nn.Conv2d(channels, 16, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
        ]  # fmt: skip
        return nn.Sequential(*seeing, nn.Linear(32 * (height // 4) * (width // 4), 128), *dense)


def judge(features: Array, inside: Array, rng: np.random.Generator) -> Callable[[Array], Array]:
    """(N, D) in [0, 1], (N,) members -> a small network: (M, D) -> (M,) logits, above 0 where a member is likelier."""
    often = math.ceil(_SHOWN / len(features))
    shown, members = np.tile(features, (often, 1)), np.tile(inside.astype(np.int64), often)
    net = surrogate.fit(shown, members, int(rng.integers(2**31)))

    def score(asked: Array) -> Array:
        with torch.no_grad():
            out, into = net(rows(asked)).double().numpy().T
        return np.asarray(into - out)

    return score


def divide(inside: Array, outside: Array) -> float:
    """Scores of members and of outsiders -> the threshold above which most are members and least are outsiders."""
    scores = np.unique(np.concatenate([inside, outside]))
    between = np.concatenate([scores[:1] - 1.0, (scores[1:] + scores[:-1]) / 2.0])
    above = [1.0 - np.searchsorted(np.sort(part), between, "right") / len(part) for part in (inside, outside)]
    return float(between[np.argmax(above[0] - above[1])])
