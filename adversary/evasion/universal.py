"""UAP, universal adversarial perturbation: one perturbation for all inputs, gathered victim by victim with DeepFool.

Source: Moosavi-Dezfooli, Fawzi, Fawzi, Frossard 2017, arXiv:1610.08401 (algorithm 1, linf).
Access: gradients. Norm: linf. Cost: DeepFool's, at every pass for the inputs not yet fooled, up to `budget` a victim.
Limits: untargeted; reaches fewer inputs than a perturbation of their own would. Moosavi-Dezfooli et al. return the
        last perturbation, here it is that of the best pass.
"""

import numpy as np

from adversary.attack import Array, Result
from adversary.evasion import deepfool
from adversary.gradients import Model, predict, within_linf
from adversary.tensors import classes, rows


def perturbation(
    model: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    passes: int = 10,
    fooled: float = 0.95,
    candidates: int = 10,
    overshoot: float = 0.02,
) -> tuple[Array, Array]:
    """(N, ...), (N,) -> the perturbation (...), the gradients it took of each row. Ends where a share `fooled` is."""
    common, cost = np.zeros(x.shape[1:], np.float32), np.zeros(len(x), np.int64)
    best, most = common, 0.0
    for _ in range(passes):
        for i in rng.permutation(len(x)):
            left = int(budget - cost[i])
            now = within_linf(x[i], x[i] + common, eps)
            if left < deepfool.PAIR or predict(model, now[None])[0] != y[i]:
                continue
            moved, took = deepfool.walk(
                model, rows(now[None]), classes(y[i : i + 1]), budget=left, candidates=candidates, overshoot=overshoot
            )
            cost[i] += int(took[0])
            common = np.clip(common + moved[0].numpy() - now, -eps, eps)
        share = float((predict(model, within_linf(x, x + common, eps)) != y).mean())
        if share > most:
            best, most = common, share
        if share >= fooled:
            break
    return best, cost


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    passes: int = 10,
    fooled: float = 0.95,
    candidates: int = 10,
    overshoot: float = 0.02,
) -> Result:
    """One perturbation from all rows, put on each of them."""
    if budget < deepfool.PAIR:
        raise ValueError("DeepFool needs a budget of two gradients, one each side of a boundary")
    if not len(x):
        return Result(np.array(x, np.float32), np.zeros(0, np.int64))
    common, cost = perturbation(
        target, x, y, eps=eps, budget=budget, rng=rng, passes=passes, fooled=fooled, candidates=candidates,
        overshoot=overshoot,
    )  # fmt: skip
    return Result(within_linf(x, x + common, eps), cost)
