"""CopycatCNN: send natural images that have nothing to do with the victim's task, and learn from its labels.

Source: Correia-Silva, Berriel, Badue, de Souza, Oliveira-Santos 2018, arXiv:1806.05476.
Access: labels. Sees no labels of its own. Cost: a row an image, each sent once.
Published: with 3 million images from outside the problem's domain, copies reach 93.7 % or more of the victim's
        accuracy.
Limits: needs many images, for a label tells little. What is sent is what the pool holds: a pool of the task's own
        inputs makes it Knockoff with labels. The authors also send images that they generate from others; not here.
"""

from collections.abc import Iterator

import numpy as np

from adversary.attack import Array, Copy, LabelOracle
from adversary.extraction.answers import Thief
from adversary.extraction.knockoff_random import EPOCHS, copies


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    classes: int,
    epochs: int = EPOCHS,
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy at an eighth, a quarter, a half of the budget and at the end; each is trained anew."""
    del y
    thief = Thief(target, budget=budget, classes=classes, answers="labels", batch=batch)
    yield from copies(thief, x, rng, epochs=epochs)
