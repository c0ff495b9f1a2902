"""AutoAttack, standard: APGD-CE, APGD-T, FAB-T and Square one after the other, each on what withstood those before.

Source: Croce, Hein 2020, arXiv:2003.01690.
Access: gradients. Norm: linf. Cost: up to `budget` a victim: 101 gradients, 9 x 101, 9 x 100, and 5000 queries of the
        model at the default of 6910, the same shares of any other.
Limits: a single forward pass decides, so randomised models need EOT; an attacker who knows the defence does better.
"""

import numpy as np

from adversary.attack import Array, Attack, Result, norms
from adversary.evasion import apgd, apgd_t, fab, square
from adversary.gradients import Model, predict
from adversary.tensors import LocalOracle

_SHARES = {"apgd-ce": 101, "apgd-t": 909, "fab-t": 900, "square": 5000}
_SLACK = 1e-6  # float32 on the edge of the ball


def _stage(name: str, model: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator) -> Result:
    attacks: dict[str, Attack] = {
        "apgd-ce": apgd.attack, "apgd-t": apgd_t.attack, "fab-t": fab.attack, "square": square.attack,
    }  # fmt: skip
    target = LocalOracle(model) if name == "square" else model
    return attacks[name](target, x, y, eps=eps, budget=budget, rng=rng)


def attack(target: Model, x: Array, y: Array, *, eps: float, budget: int, rng: np.random.Generator) -> Result:
    """The first winner of each row; where there is none, APGD-CE's best try."""
    total = sum(_SHARES.values())
    budgets = {name: budget * share // total for name, share in _SHARES.items()}
    x_adv, queries = np.array(x, np.float32), np.zeros(len(x), np.int64)
    live = np.arange(len(x))
    for name, most in budgets.items():
        if not len(live):
            break
        found = _stage(name, target, x[live], y[live], eps=eps, budget=most, rng=rng)
        queries[live] += found.queries
        won = predict(target, found.x_adv) != y[live]
        won &= norms(found.x_adv - x[live], "linf") <= eps + _SLACK
        kept = np.ones(len(live), bool) if name == "apgd-ce" else won
        x_adv[live[kept]] = found.x_adv[kept]
        live = live[~won]
    return Result(x_adv, queries)
