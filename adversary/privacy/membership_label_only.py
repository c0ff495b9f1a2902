"""Membership by labels alone: what a model has learned from stays right when it is shifted, turned or blurred by noise.

Source: Choquette-Choo, Tramer, Carlini, Papernot 2021, arXiv:2007.14321 (augmented copies; robustness to noise).
Access: labels. Cost: `budget` queries a candidate; with one it is the gap attack: right means member.
Limits: images only. A model trained with these very augmentations answers all of its inputs' copies alike; one that
        does not overfit gives nothing away.

The copies of a candidate are the image itself, its mirror image, shifts by up to two pixels, small rotations, and noise
for the rest of the budget. One shadow model (adversary.privacy.shadows) is asked about copies of the attacker's own
inputs, and a small network learns which copies of its members it gets right. What is refused counts as half right; a
candidate that gets no answer at all scores 0.
"""

import numpy as np

from adversary.attack import Array, Guesses, LabelOracle
from adversary.images import like, planes
from adversary.privacy import shadows
from adversary.privacy.answers import right
from adversary.warps import MOST_DEGREES, warp

_SHIFTS = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if 1 <= abs(i) + abs(j) <= 2]  # noqa: PLR2004 - pixels
_DEGREES = (-8.0, -4.0, 4.0, 8.0)
_FIXED = 2 + len(_SHIFTS) + len(_DEGREES)
_SIGMAS = (0.04, 0.07, 0.1, 0.15)


def copies(image: Array, n: int, rng: np.random.Generator) -> Array:
    """(...) -> (n, ...): always in the same order, the noisy ones last."""
    flat = planes(image[None])[0]
    moved = [flat, flat[..., ::-1], *(np.roll(flat, shift, (1, 2)) for shift in _SHIFTS)]
    turned = warp(image, np.array([[degrees / MOST_DEGREES, 0.0, 0.0] for degrees in _DEGREES]))
    sigmas = np.resize(_SIGMAS, max(0, n - _FIXED)).reshape(-1, *([1] * image.ndim))
    noisy = image + sigmas * rng.standard_normal((len(sigmas), *image.shape))
    together = np.concatenate([like(np.stack(moved), image[None]), turned, noisy])[:n]
    return np.asarray(np.clip(together, 0.0, 1.0))


def features(told: Array) -> Array:
    """(n,) which copies were right -> the same of the fixed ones; of the noisy ones, the share a sigma."""
    noisy = told[_FIXED:]
    parts = [noisy[i :: len(_SIGMAS)] for i in range(len(_SIGMAS))] if len(noisy) else []
    known = [part[~np.isnan(part)] for part in parts]
    shares = [part.mean() if len(part) else 0.5 for part in known]
    return np.concatenate([np.nan_to_num(told[:_FIXED], nan=0.5), shares])


def attack(
    target: LabelOracle,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    own_x: Array,
    own_y: Array,
    known: int = 1000,
    epochs: int = 30,
    batch: int = 64,
) -> Guesses:
    """known: how many of the attacker's inputs the shadow model is asked about; epochs: of its training."""
    if budget < 1:
        raise ValueError("a candidate costs one query")

    def told(oracle: LabelOracle, x: Array, y: Array) -> Array:
        pairs = zip(x, y, strict=True)
        return np.stack([right(oracle, copies(row, budget, rng), int(label), batch) for row, label in pairs])

    (shadow,) = shadows.train(own_x, own_y, count=1, epochs=epochs, rng=rng)
    chosen = rng.permutation(len(own_x))[:known]
    learned = np.stack([features(row) for row in told(shadow.oracle, own_x[chosen], own_y[chosen])])
    judge = shadows.judge(learned, shadow.inside[chosen], rng)
    answers = told(target, x, y)
    scores = judge(np.stack([features(row) for row in answers]))
    scores[np.isnan(answers).all(axis=1)] = 0.0
    return Guesses(scores, np.full(len(x), budget, np.int64))
