"""How well a copy agrees with the served model after n of its answers: students of nested sets of clean inputs.

A student is the auxiliary's architecture, distilled without perturbations from scratch (a thief's plain way). What it
agrees on is held out from what it learns from.

Source: Knockoff Nets, Orekondy et al. 2019, arXiv:1812.02766.
Cost:   at most 2,000 steps of 64 rows for each count, no perturbations: some minutes for images of 32x32x3.
"""

from dataclasses import replace

import numpy as np

from guard.learning import Tell, _silent
from guard.learning._networks import auxiliary_plan
from guard.learning._training import FEWEST_ROWS, IMAGE_RANK, Pace, in_parts, seeded, suited
from guard.learning.auxiliary import Options, distil
from guard.types import Array, Material

COUNTS = (100, 300, 1000, 3000, 10_000, 30_000)
_HELD_OUT = 0.2
_MOST_HELD_OUT = 2000


def pace(shape: tuple[int, ...]) -> Pace:
    """How long a student learns."""
    if len(shape) + 1 != IMAGE_RANK:
        return Pace(epochs=20, least=300, most=4000, batch=64, rate=0.05)
    return suited(Pace(epochs=12, least=300, most=2000, batch=64, rate=0.1, average=0.99), shape)


def measure(material: Material, chosen: Pace | None = None, tell: Tell = _silent) -> tuple[Array, Array]:
    """(K,) counts and (K,) agreement.

    Raises ValueError where there are too few rows, or labels only.
    """
    if material.probs is None:
        raise ValueError("students learn from the served model's probabilities, and it answers with labels only")
    if len(material.x) < FEWEST_ROWS:
        raise ValueError(f"students need {FEWEST_ROWS} clean inputs; there are {len(material.x)}")
    probs, shape = np.asarray(material.probs, np.float32), material.x.shape[1:]
    order = np.random.default_rng(material.seed).permutation(len(material.x))
    held = min(_MOST_HELD_OUT, int(_HELD_OUT * len(order)))
    rest, test = order[held:], order[:held]
    counts = [n for n in COUNTS if n < len(rest)]
    counts = [*counts, len(rest)] if not counts or len(rest) > 1.5 * counts[-1] else counts
    wanted, found = probs[test].argmax(axis=1), []
    for n in counts:
        own = chosen or pace(shape)
        own = replace(own, batch=min(own.batch, n))
        with seeded(material.seed) as rng:
            student = distil(
                material.x[rest[:n]], probs[rest[:n]], auxiliary_plan(shape, material.classes), Options(0.0, own),
                rng=rng, tell=tell, what=f"student of {n} answers",
            )  # fmt: skip
        found.append(float((in_parts(student.logits, material.x[test]).argmax(axis=1) == wanted).mean()))
    return np.array(counts, dtype=np.int64), np.array(found)
