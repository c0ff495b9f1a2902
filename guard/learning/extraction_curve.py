"""How well a copy agrees with the served model after n of its answers: students of nested sets of clean inputs.

A student is the auxiliary's architecture, distilled without perturbations from scratch (a thief's plain way). What it
agrees on is held out from what it learns from. Few answers teach more or less, by which they are: there the mean of
two draws counts.

Source: Knockoff Nets, Orekondy et al. 2019, arXiv:1812.02766.
Cost:   600 to 2,000 steps of at most 64 rows a student for images in grey, 1,200 to 3,000 for those in colour. With
        10,000 inputs to learn from, on one core with AVX512-BF16: minutes.
"""

from dataclasses import replace

import numpy as np

from guard.learning import Tell, _silent
from guard.learning._networks import auxiliary_plan
from guard.learning._training import FEWEST_ROWS, IMAGE_RANK, Pace, Rows, in_parts, seeded, suited
from guard.learning.auxiliary import Options, distil
from guard.types import Array, Material

COUNTS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
DRAWS, FEW = 2, 300
"""Students of as many answers, or fewer, are several."""
_HELD_OUT = 0.2
_MOST_HELD_OUT = 2000


def pace(shape: tuple[int, ...]) -> Pace:
    """How long a student learns: photographs take longer."""
    if len(shape) + 1 != IMAGE_RANK:
        return Pace(epochs=20, least=300, most=4000, batch=64, rate=0.05)
    if shape[-1] == 1:
        return suited(Pace(epochs=12, least=600, most=2000, batch=64, rate=0.1, average=0.99), shape)
    return suited(Pace(epochs=16, least=1200, most=3000, batch=64, rate=0.1, average=0.99), shape)


def measure(material: Material, chosen: Pace | None = None, tell: Tell = _silent) -> tuple[Array, Array]:
    """(K,) counts and (K,) agreement.

    Raises ValueError where there are too few rows, or labels only.
    """
    if material.probs is None:
        raise ValueError("students learn from the served model's probabilities, and it answers with labels only")
    if len(material.x) < FEWEST_ROWS:
        raise ValueError(f"students need {FEWEST_ROWS} clean inputs; there are {len(material.x)}")
    rng = np.random.default_rng(material.seed)
    order = rng.permutation(len(material.x))
    held = min(_MOST_HELD_OUT, int(_HELD_OUT * len(order)))
    rest, test = order[held:], order[:held]
    draws = [rest, *(rng.permutation(rest) for _ in range(DRAWS - 1))]
    counts = _counts(len(rest))
    found = [
        np.mean([_agreement(material, rows[:n], test, chosen, tell) for rows in draws[: DRAWS if n <= FEW else 1]])
        for n in counts
    ]
    return np.array(counts, dtype=np.int64), np.array(found)


def _counts(most: int) -> list[int]:
    """Those that so many rows allow, and all of them where that is much more."""
    counts = [n for n in COUNTS if n < most]
    return [*counts, most] if most > 1.5 * counts[-1] else counts


def _agreement(material: Material, rows: Rows, test: Rows, chosen: Pace | None, tell: Tell) -> float:
    """The share of the test rows that a student of some rows answers as the served model does."""
    probs, shape = np.asarray(material.probs, np.float32), material.x.shape[1:]
    own = chosen or pace(shape)
    with seeded(material.seed) as rng:
        student = distil(
            material.x[rows], probs[rows], auxiliary_plan(shape, material.classes),
            Options(0.0, replace(own, batch=min(own.batch, len(rows)))),
            rng=rng, tell=tell, what=f"student of {len(rows):,} answers",
        )  # fmt: skip
    return float((in_parts(student.logits, material.x[test]).argmax(axis=1) == probs[test].argmax(axis=1)).mean())
