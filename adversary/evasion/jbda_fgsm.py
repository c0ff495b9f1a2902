"""JBDA as a transfer attack: a substitute learns from the victim's labels, FGSM on it makes what is sent.

Source: Papernot, McDaniel, Goodfellow, Jha, Celik, Swami 2017, arXiv:1602.02697 (150 seeds, 6,400 labels, eps 0.3).
Access: labels. Norm: linf. Cost: `budget` rows in all, whatever the number of victims; `queries` is that divided over
        them. Sees own_x, inputs of the attacker's own without labels: the first `seeds` of them are sent.
Published: 84 % of the images at eps 0.3 mislead a remote MNIST model.
Limits: carries as far as the substitute is like the victim; the inputs attacked are never sent before the end.
"""

import numpy as np

from adversary.attack import Array, LabelOracle, Result
from adversary.evasion import fgsm
from adversary.extraction.answers import Thief
from adversary.extraction.jbda import SEEDS, substitutes


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    eps: float,
    budget: int,
    rng: np.random.Generator,
    own_x: Array,
    classes: int,
    seeds: int = SEEDS,
    epochs: int = 5,
    batch: int = 100,
) -> Result:
    """All victims at once; the substitute after the last round is the one that FGSM sees."""
    thief = Thief(target, budget=budget, classes=classes, answers="labels", batch=batch)
    *_, substitute = substitutes(thief, np.asarray(own_x[:seeds], np.float32), rng, epochs=epochs)
    made = fgsm.attack(substitute, x, y, eps=eps, budget=1, rng=rng)
    return Result(made.x_adv, shares(thief.spent, len(x)))


def shares(spent: int, victims: int) -> Array:
    """Rows divided over the victims, as evenly as whole numbers go."""
    return np.diff(np.arange(victims + 1) * spent // max(1, victims))
