"""`python -m bench.outputs`: what output protections cost honest callers, and what three simple attackers still learn.

Answers of our own victims, protected in this process with every row chosen: no wire, no detector. Of CIFAR-10's
residual network, on test images that no stage has learned from: labels that change, L1 between the answer given and
the model's own, the expected calibration error (15 bins); and of random squares of 8/255 how many move the margin that
is told the way they move the true one, how many the other way. Of the network that has overfitted: AUROC of members
against test images by confidence, and by the probability of the true class. Of the linear MNIST victim: how often a
softmax regression fitted to told probabilities of 1,000 images agrees with it on the test set. Two minutes on one core.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from adversary.data import cifar10, mnist
from adversary.victims import cifar10 as cifar10_victim
from adversary.victims import cifar10_overfit, mnist_linear
from bench import pages
from guard import registry
from guard.equipping import equip, learner_of
from guard.profile import stage_key, to_probabilities
from guard.settings import build_stage
from guard.types import Array, KeyedOutput, Material

Floats = NDArray[np.float64]
Protect = Callable[[Array, Array], Array]  # inputs in unit form, answers -> answers

SECRET = b"bench.outputs: what is random is drawn from this"
LEARNED_FROM, STEPS, MEMBERS, QUERIES, COPIES = 2000, 2000, 2500, 1000, 3
RESAMPLES, BINS, SIDE, EPS = 200, 15, 6, 8 / 255
BEGIN, END = "<!-- what protections cost: begin -->", "<!-- what protections cost: end -->"

WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("label_only", {}),
    ("rounding", {}),
    ("top_k", {"k": 1}),
    ("top_k", {"k": 3}),
    ("temperature", {}),
    ("reverse_sigmoid", {}),
    ("low_confidence_noise", {}),
    ("low_confidence_noise", {"sigma": 0.5, "threshold": 0.7}),
    ("low_confidence_noise", {"sigma": 0.5, "threshold": 0.7, "keep_label": False}),
    ("aaa", {"period": 1.0}),
    ("aaa", {}),
    ("aaa", {"period": 4.0}),
    ("aaa", {"form": "sine", "period": 4.0}),
    ("adaptive_misinformation", {}),
    ("adaptive_misinformation", {"keep_label": False}),
    ("modelguard", {}),
    ("modelguard", {"eps": 0.3}),
    ("membership_noise", {}),
    ("membership_noise", {"eps": 0.2}),
)
HEADINGS = (
    "protection", "labels changed", "L1", "calibration error", "steps shown right / wrong", "members by confidence",
    "by true class", "a copy agrees",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """One victim: what it answers, and what its stages learn from. x in its own layout, (N, C, H, W)."""

    session: Any
    own: Array

    def __call__(self, x: Array) -> Floats:
        parts = [self.session.run(None, {"image": x[i : i + 250]})[0] for i in range(0, len(x), 250)]
        return np.asarray(to_probabilities(np.concatenate(parts), "logits"))

    def protected(self, name: str, options: dict[str, Any]) -> Protect:
        """The stage at work, every row chosen; an empty name: nothing is done."""
        if not name:
            return lambda _, probs: probs
        stage = build_stage("output", name, options)
        learn = learner_of(stage)
        known = Material(unit(self.own), self(self.own), 10, seed=0)
        working = equip(stage, stage_key("output", name), {}, {} if learn is None else learn(known), SECRET)

        def use(x: Array, probs: Array) -> Array:
            every = np.ones(len(probs), np.bool_)
            keyed = isinstance(working, KeyedOutput)
            return np.asarray(
                working.protect_keyed(unit(x), probs, every) if keyed else working.protect(probs, every)
            )  # fmt: skip

        return use


def unit(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C)."""
    return np.moveaxis(x, 1, -1)


def served(checkpoint: Path, own: Array) -> Served:
    """On one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return Served(onnxruntime.InferenceSession(str(checkpoint), options, providers=["CPUExecutionProvider"]), own)


# --- what it costs honest callers


@dataclass(frozen=True, slots=True, eq=False)
class Honest:
    """Test images, their labels, the model's answers; and steps from some of them, with the answers to these."""

    x: Array
    y: Array
    probs: Floats
    moved: Array
    moved_probs: Floats

    @classmethod
    def of(cls, model: Served, x: Array, y: Array) -> "Honest":
        rng = np.random.default_rng(1)
        moved = x[:STEPS].copy()
        for image in moved:
            top, left = rng.integers(x.shape[2] - SIDE + 1, size=2)
            image[:, top : top + SIDE, left : left + SIDE] += EPS * rng.choice([-1, 1], (len(image), 1, 1))
        moved = np.clip(moved, 0, 1)
        return cls(x, y, model(x), moved, model(moved))

    def cells(self, use: Protect) -> tuple[str, ...]:
        """Labels changed, L1, calibration error, steps."""
        told = use(self.x, self.probs)
        changed = (told.argmax(axis=1) != self.probs.argmax(axis=1)).mean()
        far = np.abs(told - self.probs).sum(axis=1)
        error, (low, high) = calibration_error(told, self.y), spread(told, self.y)
        label = self.probs[:STEPS].argmax(axis=1)
        true = margin(self.moved_probs, label) - margin(self.probs[:STEPS], label)
        shown = margin(use(self.moved, self.moved_probs), label) - margin(told[:STEPS], label)
        right, wrong = (np.sign(shown) * np.sign(true) == sign for sign in (1, -1))
        return (
            per_cent(changed),
            f"{far.mean():.3f} ± {1.96 * far.std() / np.sqrt(len(far)):.3f}",
            f"{error:.3f} ({low:.3f} to {high:.3f})",
            f"{per_cent(right.mean())} / {per_cent(wrong.mean())}",
        )


def margin(probs: Array, label: Array) -> Floats:
    """(N, C), (N,) -> the label's logit less the largest other."""
    logits = np.log(np.maximum(probs, 1e-12))
    each = np.arange(len(logits))
    own = logits[each, label]
    logits[each, label] = -np.inf
    return np.asarray(own - logits.max(axis=1))


def calibration_error(probs: Array, y: Array) -> float:
    """Naeini, Cooper, Hauskrecht 2015: bins of equal width."""
    sure, right = probs.max(axis=1), probs.argmax(axis=1) == y
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    return float(np.abs(np.bincount(place, right - sure, BINS)).sum() / len(y))


def spread(probs: Array, y: Array) -> tuple[float, float]:
    """95 % bootstrap."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(RESAMPLES):
        rows = rng.integers(len(y), size=len(y))
        found.append(calibration_error(probs[rows], y[rows]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def per_cent(share: Any) -> str:
    """With one decimal."""
    return f"{100 * float(share):.1f} %"


# --- what attackers still learn


def memberships(x: Array, y: Array, probs: Floats, use: Protect) -> tuple[str, ...]:
    """AUROC by confidence and by the probability of the true class; the first half are members."""
    told, half = use(x, probs), len(x) // 2
    scores = told.max(axis=1), told[np.arange(len(told)), y]
    return tuple(show_auroc(score[:half], score[half:]) for score in scores)


def show_auroc(members: Array, others: Array) -> str:
    """With the half-width of its 95 % interval (Hanley, McNeil 1982)."""
    both = np.concatenate([members, others])
    _, place, count = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place.ravel()]
    n, m = len(members), len(others)
    a = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    q = a / (2 - a) - a * a, 2 * a * a / (1 + a) - a * a
    error = np.sqrt((a * (1 - a) + (n - 1) * q[0] + (m - 1) * q[1]) / (n * m))
    return f"{a:.3f} ± {1.96 * error:.3f}"


def copied(pool: Array, probs: Floats, x: Array, labels: Array, use: Protect) -> str:
    """Agreement of copies made from so many draws of the pool: the mean, least and most."""
    found = []
    for seed in range(COPIES):
        rows = np.random.default_rng(seed).permutation(len(pool))[:QUERIES]
        weights = regression(flat(pool[rows]), use(pool[rows], probs[rows]))
        found.append(((flat(x) @ weights).argmax(axis=1) == labels).mean())
    return f"{per_cent(np.mean(found))} ({100 * min(found):.1f} to {100 * max(found):.1f})"


def flat(x: Array) -> Floats:
    """Images as rows, with a 1 at the end."""
    return np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1).astype(np.float64)


def regression(x: Floats, wanted: Array, steps: int = 400, rate: float = 0.02) -> Floats:
    """Softmax regression by gradient steps with momentum on cross-entropy with the told probabilities."""
    weights, pace = np.zeros((x.shape[1], wanted.shape[1])), np.zeros((x.shape[1], wanted.shape[1]))
    for _ in range(steps):
        pace = 0.9 * pace - rate * x.T @ (to_probabilities(x @ weights, "logits") - wanted) / len(x)
        weights += pace
    return np.asarray(weights)


def measured() -> list[tuple[str, ...]]:
    """A row of cells for the bare model, then for each way."""
    registry.load()
    objects, digits = cifar10.load(), mnist.load()
    test, test_y = cifar10.unit(objects.test.images), objects.test.labels.astype(np.int64)
    clean = cifar10.unit(objects.clean.images[:LEARNED_FROM])
    model, leaky = served(cifar10_victim.CHECKPOINT, clean), served(cifar10_overfit.CHECKPOINT, clean)
    honest = Honest.of(model, test, test_y)
    seen = objects.learn.part(slice(0, MEMBERS))
    both_x = np.concatenate([cifar10.unit(seen.images), test[:MEMBERS]])
    both_y = np.concatenate([seen.labels.astype(np.int64), test_y[:MEMBERS]])
    linear = served(mnist_linear.CHECKPOINT, mnist.unit(digits.clean.images[:LEARNED_FROM]))
    pool, digits_x = mnist.unit(digits.clean.images[LEARNED_FROM:]), mnist.unit(digits.test.images)
    answers = leaky(both_x), linear(pool), linear(digits_x).argmax(axis=1)
    rows = []
    for name, options in (("", {}), *WAYS):
        uses = [victim.protected(name, options) for victim in (model, leaky, linear)]
        shown = " ".join([name or "none", *(f"{key} {value}" for key, value in options.items())])
        rows.append(
            (
                shown,
                *honest.cells(uses[0]),
                *memberships(both_x, both_y, answers[0], uses[1]),
                copied(pool, answers[1], digits_x, answers[2], uses[2]),
            )
        )
        sys.stderr.write(" | ".join(rows[-1]) + "\n")
    return rows


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [HEADINGS, ("---", *("---:",) * (len(HEADINGS) - 1)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table, or puts it into a page."""
    made = argparse.ArgumentParser(prog="python -m bench.outputs", description="What output protections cost.")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help="put the table into this page")
    options = made.parse_args(argv)
    text = table(measured())
    print(text)
    if options.docs is not None:
        pages.put(options.docs, text, begin=BEGIN, end=END, title="Choose an output protection")
    return 0


if __name__ == "__main__":
    sys.exit(main())
