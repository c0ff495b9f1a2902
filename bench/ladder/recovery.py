"""Answers undone: a network learns, on a shadow victim's answers, what stands behind those that a defence gives.

Source: Chen, Guo, et al. 2023, D-DAE (IEEE S&P): shadow models behind the defence, and a network from told answers to
        true ones. Here the thief knows the defence, its options and the model's classes, all but its secret, and need
        not find out which it is.
Shadow: the thief's own network, taught an image task of his own with labels that he has (Fashion-MNIST for CIFAR-10,
        CIFAR-10 for MNIST), and asked about a foreign set. What the victim's answers have to do with its inputs he
        cannot know; how the defence bends an answer, he can.
Form:   told probabilities, sorted, -> how likely each place in that order is the class that the model says. Classes of
        the shadow are not the victim's, so nothing hangs on which class stands where.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from adversary.attack import Array
from adversary.data import cifar10, fashion
from adversary.data.foreign import fit
from adversary.extraction.answers import Loot
from adversary.extraction.networks import learn, network
from adversary.gradients import BATCH, one_thread
from bench.ladder import arms, sets
from bench.monitors.ground import ground, softmax
from guard import registry
from guard.equipping import equip, learner_of
from guard.profile import stage_key
from guard.settings import build_stage
from guard.types import KeyedOutput, Material

_SECRET = b"the thief's own, since he does not know the victim's"
_TAUGHT, _EPOCHS, _PAIRS, _STEPS, _RATE, _WIDE = 5000, 2, 4000, 1500, 3e-3, 64
_LEAST = 1e-6


@lru_cache(maxsize=4)
def _shadow(data: str) -> tuple[Array, Array, Array]:
    """Queries (N, H, W, C) in unit form, the shadow's answers to them, and its answers to images of its own task."""
    on, rng = ground(data), np.random.default_rng(11)
    task = (fashion if data == "cifar10" else cifar10).load().learn
    shape = on.unit(on.thief.images[:1]).shape[1:]
    x = fit(task.images[: 2 * _TAUGHT], shape)
    with one_thread():
        net = network(shape, on.classes, rng)
        learn(net, Loot(x[:_TAUGHT], np.eye(on.classes)[task.labels[:_TAUGHT]]), rng, epochs=_EPOCHS)
        asked = sets.queries(data, "photos", _PAIRS, 1234)
        return np.moveaxis(asked, 1, -1), _answers(net, asked), _answers(net, x[_TAUGHT:])


def _answers(net: nn.Module, x: Array) -> Array:
    with torch.no_grad():
        return softmax(
            np.concatenate([net(torch.from_numpy(x[i : i + BATCH])).numpy() for i in range(0, len(x), BATCH)])
        )


@lru_cache(maxsize=4)
def _network(data: str, arm: str) -> nn.Module:
    """Fitted on what the shadow would say, and what an arm would make of it for a hostile caller."""
    x, true, calm = _shadow(data)
    told = protected(arm, x, true, calm)
    order = np.argsort(-told, axis=1, kind="stable")
    wanted = torch.from_numpy(np.take_along_axis(true, order, axis=1).astype(np.float32))
    given, classes = _form(np.take_along_axis(told, order, axis=1)), told.shape[1]
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        net = nn.Sequential(nn.Linear(classes, _WIDE), nn.ReLU(), nn.Linear(_WIDE, _WIDE), nn.ReLU(),
                            nn.Linear(_WIDE, classes))  # fmt: skip
        optimizer, rng = torch.optim.Adam(net.parameters(), lr=_RATE), np.random.default_rng(12)
        for _ in range(_STEPS):
            rows = rng.integers(len(given), size=128)
            optimizer.zero_grad()
            functional.cross_entropy(net(given[rows]), wanted[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


def protected(arm: str, x: Array, p: Array, calm: Array) -> Array:
    """What an arm's output protections would make of answers for a hostile caller, with another secret."""
    registry.load()
    for one in arms.ARMS[arm].get("outputs", ()):
        stage = build_stage("output", one["stage"], one.get("options", {}))
        learner = learner_of(stage)
        arrays = {} if learner is None else learner(Material(np.zeros((len(calm), 1), np.float32), calm, p.shape[1]))
        working = equip(stage, stage_key("output", one["stage"]), {}, arrays, _SECRET)
        every = np.ones(len(p), np.bool_)
        keyed = isinstance(working, KeyedOutput)
        p = np.asarray(working.protect_keyed(x, p, every) if keyed else working.protect(p, every))
    return p


def recovered(data: str, arm: str, told: Array) -> Array:
    """(N, C) -> (N, C) float64 what probably stood there. Classes that were told alike are taken to be alike."""
    order = np.argsort(-told, axis=1, kind="stable")
    net = _network(data, arm)
    with torch.no_grad():
        logits = net(_form(np.take_along_axis(told, order, axis=1))).numpy()
    made = np.empty_like(told, np.float64)
    np.put_along_axis(made, order, softmax(logits), axis=1)
    alike = np.abs(told[:, :, None] - told[:, None, :]) < _LEAST
    return np.asarray((alike * made[:, None, :]).sum(axis=2) / alike.sum(axis=2))


def _form(p: Array) -> torch.Tensor:
    return torch.from_numpy(np.log(np.maximum(p, _LEAST)).astype(np.float32))
