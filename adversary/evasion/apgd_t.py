"""APGD-T: Auto-PGD on the targeted DLR loss, one run for each of the most probable wrong classes.

Source: Croce, Hein 2020, arXiv:2003.01690 (as in AutoAttack's standard version: nine targets, one start each).
Access: gradients. Norm: linf. Cost: up to `budget` gradients a victim, shared evenly among the targets; it stops where
        it has won.
Limits: as Auto-PGD's; the model needs four classes.
"""

import numpy as np
import torch
from torch import Tensor

from adversary.attack import Array, Result
from adversary.evasion import apgd
from adversary.gradients import Model
from adversary.tensors import parts, rows

_TINY = 1e-12
_CLASSES = 4


def dlr(logits: Tensor, y: Tensor, goal: Tensor) -> Tensor:
    """The target's lead in units of the gap between the first logit and the mean of the third and fourth."""
    ranked = logits.sort(dim=1, descending=True).values
    lead = logits.gather(1, goal[:, None])[:, 0] - logits.gather(1, y[:, None])[:, 0]
    return lead / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2.0 + _TINY)


def wrong_classes(model: Model, x: Array, y: Array) -> Array:
    """(N, ...), (N,) -> (N, C - 1), the most probable first."""
    found = []
    with torch.no_grad():
        for part in parts(len(x)):
            logits = model(rows(x[part])).numpy()
            logits[np.arange(len(logits)), y[part]] = -np.inf
            found.append(np.argsort(-logits, axis=1, kind="stable")[:, :-1])
    return np.concatenate(found)


def attack(
    target: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator, targets: int = 9
) -> Result:
    """At most `targets` classes, in the order of the clean logits."""
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    if not len(x):
        return Result(x_adv, queries)
    goals = wrong_classes(target, x, y)[:, :targets]
    steps = budget // goals.shape[1] - 1
    if steps < 1 or goals.shape[1] < min(targets, _CLASSES - 1):
        raise ValueError(f"APGD-T needs four classes, and two gradients for each of {goals.shape[1]} targets")
    live = np.arange(len(x))
    for aim in goals.T:
        x_adv[live], won, cost = apgd.run(
            target, x[live], y[live], loss=dlr, eps=eps, steps=steps, rng=rng, goals=aim[live]
        )
        queries[live] += cost
        live = live[~won]
        if not len(live):
            break
    return Result(x_adv, queries)
