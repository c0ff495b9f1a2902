"""KnockoffNets, adaptive policy: a bandit chooses which of the pool's classes to send next.

Source: Orekondy, Schiele, Fritz 2019, arXiv:1812.02766 (section 4.1.2; gradient bandit, rewards cert + div + loss).
Access: scores; labels do with `answers="labels"`, where certainty says nothing. Sees labels of its own, in any classes:
        they are the arms. Cost: a row an input, each sent once.
Limits: arms are flat here, as the labels are; the authors' tree of classes helps where there are hundreds. Where all
        labels are one, it is the random policy.

Rewards: how certain the victim is, how far its answer is from its usual ones, and how wrong the copy so far is. Each is
brought to [0, 1] by the extremes so far; their sum counts by what it is above the mean of the last 25.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from adversary.attack import Array, Copy
from adversary.extraction.answers import Kind, Loot, Thief, milestones
from adversary.extraction.knockoff_random import EPOCHS, trained
from adversary.extraction.networks import copy_of, learn, network
from adversary.gradients import BATCH

_BASELINE = 25  # rewards


@dataclass(slots=True)
class Bandit:
    """Preferences of (K,) arms; the one drawn gains what its reward is above the baseline, the others lose."""

    preferences: Array
    drawn: Array
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_BASELINE))

    @classmethod
    def of(cls, arms: int) -> "Bandit":
        """All alike."""
        return cls(np.zeros(arms), np.zeros(arms, np.int64))

    def chances(self, left: Array) -> Array:
        """(K,) inputs that are left of each arm -> (K,) probabilities."""
        weights = np.where(left > 0, np.exp(self.preferences - self.preferences.max()), 0.0)
        return np.asarray(weights / weights.sum())

    def learn(self, arm: int, reward: float) -> None:
        """One step, whose size falls with how often the arm was drawn."""
        self.drawn[arm] += 1
        above = reward - (sum(self.recent) / len(self.recent) if self.recent else reward)
        chances = self.chances(np.ones(len(self.preferences)))
        self.preferences += above / self.drawn[arm] * ((np.arange(len(chances)) == arm) - chances)
        self.recent.append(reward)


@dataclass(slots=True)
class Rewards:
    """What answers are worth to the thief, by what he has seen before."""

    mean: Array
    seen: int = 0
    low: Array = field(default_factory=lambda: np.full(3, np.inf))
    high: Array = field(default_factory=lambda: np.full(3, -np.inf))

    def __call__(self, p: Array, q: Array) -> float:
        """(C,) the victim's answer, (C,) the copy's -> between 0 and 3."""
        self.seen += 1
        self.mean = self.mean + (p - self.mean) / self.seen
        second, first = np.partition(p, -2)[-2:]
        loss = -(p * np.log(np.maximum(q, np.finfo(np.float32).tiny))).sum()
        parts = np.array([first - second, np.maximum(p - self.mean, 0.0).sum(), loss])
        self.low, self.high = np.minimum(self.low, parts), np.maximum(self.high, parts)
        spread = self.high - self.low
        return float(np.where(spread > 0.0, (parts - self.low) / np.where(spread > 0.0, spread, 1.0), 0.0).sum())


class Pool:
    """Rows by arm, in no order; each is dealt out once."""

    def __init__(self, y: Array, rng: np.random.Generator) -> None:
        self.rows = [list(rng.permutation(np.flatnonzero(y == arm))) for arm in np.unique(y)]

    @property
    def left(self) -> Array:
        """(K,) of each arm."""
        return np.array([len(rows) for rows in self.rows])

    def deal(self, bandit: Bandit, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """As the bandit would have it -> (count,) rows, (count,) their arms; fewer where the pool ends."""
        rows, arms = [], []
        for _ in range(min(count, int(self.left.sum()))):
            arm = int(rng.choice(len(self.rows), p=bandit.chances(self.left)))
            rows.append(self.rows[arm].pop())
            arms.append(arm)
        return np.array(rows, np.int64), np.array(arms, np.int64)


def attack(
    target: object,
    x: Array,
    y: Array,
    *,
    budget: int,
    rng: np.random.Generator,
    classes: int,
    answers: Kind = "scores",
    epochs: int = EPOCHS,
    batch: int = 100,
) -> Iterator[Copy]:
    """A copy at an eighth, a quarter, a half of the budget and at the end; the bandit learns after every call."""
    thief = Thief(target, budget=budget, classes=classes, answers=answers, batch=batch)
    pool = Pool(y, rng)
    bandit, rewards = Bandit.of(len(pool.rows)), Rewards(np.zeros(classes))
    loot = Loot(x[:0], np.zeros((0, classes)))
    net = network(x.shape[1:], classes, rng)  # learns along the way, to be wrong about what comes next
    for mark in milestones(min(budget, len(x))):
        while thief.spent < mark:
            rows, arms = pool.deal(bandit, min(batch, mark - thief.spent), rng)
            p = thief.ask(x[rows])
            told = ~np.isnan(p).any(axis=1)
            got = Loot(x[rows[told]], p[told])
            for arm, answer, guess in zip(arms[told], got.p, _answers_of(net, got.x), strict=True):
                bandit.learn(int(arm), rewards(answer, guess))
            loot += got
            learn(net, got + loot.part(rng.permutation(len(loot))[: len(got)]), rng, epochs=1)
        yield copy_of(trained(loot, rng, epochs=epochs))


def _answers_of(net: nn.Module, x: Array) -> Array:
    """(N, ...) -> (N, C) probabilities."""
    with torch.no_grad():
        parts = [torch.softmax(net(torch.from_numpy(x[at : at + BATCH])), 1) for at in range(0, len(x), BATCH)]
    return torch.cat(parts).double().numpy() if parts else np.zeros((0, 0))
