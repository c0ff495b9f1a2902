"""Averaging: every query is repeated and its answers averaged, against defences that put noise on inputs or answers.

Source: Qin, Fan, Zha, Wu 2021, arXiv:2104.11470 (the adaptive attack on random noise defence).
Access: the base attack's. Norm: its own. Cost: up to `budget` queries a victim, `repeats` of them for one of the base.
Limits: noise that is a function of the query (seeded by it, or answered from a memory) does not average out, unless
        `jitter` makes every copy a query of its own. Repeats are near-duplicates: stateful monitors see little else.

Probabilities are averaged; of labels the most frequent counts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adversary.adaptive.wrapping import Endpoint, Pooled, Purse, disguised
from adversary.attack import Array, Result


def attack(
    target: Endpoint,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    base: str = "square",
    repeats: int = 10,
    jitter: float = 0.0,
    starts: Array | None = None,
    options: Mapping[str, Any] | None = None,
) -> Result:
    """Stops where the base attack does.

    base:     an attack by queries in the catalogue; starts, options: its own.
    jitter:   the standard deviation of noise on every copy.
    """

    def copy(rows: Array) -> Array:
        noise = jitter * rng.standard_normal(rows.shape) if jitter > 0.0 else 0.0
        return np.asarray(np.clip(rows + noise, 0.0, 1.0))

    def disguise(purse: Purse, _: int) -> Endpoint:
        return Pooled(purse, copy, repeats)

    return disguised(
        disguise, target, x, y, base=base, eps=eps, budget=budget, rng=rng, price=repeats, starts=starts,
        options=options,
    )  # fmt: skip
