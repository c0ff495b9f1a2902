"""JSMA: raises, pair by pair, the pixels that the Jacobian says lead towards a target class and away from the others.

Source: Papernot, McDaniel, Jha, Fredrikson, Celik, Swami 2016, arXiv:1511.07528 (algorithm 3: pairs, theta 1).
Access: gradients. Norm: l0 (pixels changed). Cost: two gradients a pair, up to `budget` a victim.
Limits: targeted, by default at the runner-up class; changes are of full size; on colour a pair may lie in one pixel.

A pair (p, q) maximises -(a_p + a_q)(b_p + b_q) where a > 0 is the target's derivative and b < 0 that of all others
together. Both lie on the first two Pareto fronts of (a, -b), so the search is exact without trying every pair.
"""

import math

import numpy as np
import torch

from adversary.attack import Array, Result
from adversary.gradients import Model
from adversary.tensors import CLEAR, margin, rows, runner_up

_PAIR = 2


def _derivatives(model: Model, x: Array, target: Array) -> tuple[Array, Array]:
    """(N, D...), (N,) -> the logit gradients of the target and of all other classes together, (N, D) each."""
    at = rows(x).requires_grad_()
    logits = model(at)
    own = logits.gather(1, torch.from_numpy(target)[:, None]).sum()
    of_target = torch.autograd.grad(own, at, retain_graph=True)[0]
    of_all = torch.autograd.grad(logits.sum(), at)[0]
    return of_target.flatten(1).numpy(), (of_all - of_target).flatten(1).numpy()


def _front(a: Array, b: Array) -> Array:
    """Which points (a, b) no other surpasses in both."""
    order = np.lexsort((-b, -a))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(b[order])[:-1]])
    return np.asarray(order[b[order] > best_before])


def _best_pair(towards: Array, away: Array, free: Array) -> Array | None:
    """The two of the free features whose sums of `towards` and of `away` are positive with the largest product."""
    places = np.flatnonzero(free)
    first = _front(towards[places], away[places])
    rest = np.delete(places, first)
    kept = np.concatenate([places[first], rest[_front(towards[rest], away[rest])]])
    if len(kept) < _PAIR:
        return None
    p, q = np.triu_indices(len(kept), 1)
    a, b = towards[kept[p]] + towards[kept[q]], away[kept[p]] + away[kept[q]]
    saliency = np.where((a > 0) & (b > 0), a * b, -np.inf)
    best = int(saliency.argmax())
    return np.array([kept[p[best]], kept[q[best]]]) if np.isfinite(saliency[best]) else None


def _step(model: Model, flat: Array, shape: tuple[int, ...], target: Array, theta: float) -> Array:
    """Change the best pair of each row in place -> whether there was one."""
    towards, others = _derivatives(model, flat.reshape(-1, *shape), target)
    free = flat < 1.0 if theta > 0 else flat > 0.0
    moved = np.zeros(len(flat), bool)
    for i in range(len(flat)):
        pair = _best_pair(np.sign(theta) * towards[i], -np.sign(theta) * others[i], free[i])
        if pair is not None:
            flat[i, pair] = np.clip(flat[i, pair] + theta, 0.0, 1.0)
            moved[i] = True
    return moved


def attack(
    target: Model,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    targets: Array | None = None,
    theta: float = 1.0,
) -> Result:
    """Towards `targets` (N,), by default each row's most probable wrong class; stops where it is reached."""
    del rng  # nothing is random here
    if budget < _PAIR or eps < _PAIR:
        raise ValueError("JSMA changes pairs: it needs an eps of two pixels and a budget of two gradients")
    goal = np.asarray(runner_up(target, x, y) if targets is None else targets, np.int64)
    flat = np.array(x, np.float32).reshape(len(x), math.prod(x.shape[1:]))
    queries, live = np.zeros(len(x), np.int64), np.arange(len(x))
    for _ in range(min(budget, int(eps)) // _PAIR):
        if not len(live):
            break
        part = flat[live]
        moved = _step(target, part, x.shape[1:], goal[live], theta)
        flat[live] = part
        queries[live] += _PAIR
        live = live[moved & ~_reached(target, part.reshape(-1, *x.shape[1:]), goal[live])]
    return Result(flat.reshape(x.shape), queries)


def _reached(model: Model, x: Array, goal: Array) -> Array:
    """(N,) whether the target class is answered, clearly."""
    with torch.no_grad():
        return np.asarray(margin(model(rows(x)), torch.from_numpy(goal)).numpy() < -CLEAR)
