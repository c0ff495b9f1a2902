"""Square attack on protected answers, plain and by attackers who know of AAA; many images at once.

The moves are `adversary.evasion.square`'s; what is kept of them is a rule here:

    down     where the margin falls: Square as it is (Andriushchenko et al. 2020, arXiv:1912.00049)
    up       where the margin rises, or falls by more than 3: AAA's authors' own adaptive attack (Chen et al. 2022,
             arXiv:2205.12134, up-Square)
    both     down, until a move has raised the margin by more than 3, then up: theirs as well (bi-Square)
    undone   down, on the margin that AAA's linear bend of a known period was made of

All end with the first answer of another label.
"""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import numpy as np

from adversary.attack import Array
from adversary.evasion.square import share, with_square

JUMP = 3.0
_LEAST = 1e-30
Ask = Callable[[Array], Array]


@dataclass(slots=True)
class Rule:
    """Which move is kept. period: of the bend that is undone; 0: none. up, turns: which way, and whether it changes."""

    up: bool = False
    turns: bool = False
    period: float = 0.0

    def seen(self, margin: float) -> float:
        """The margin that is reckoned with."""
        if self.period and margin >= 0.0:
            return 2.0 * (math.floor(margin / self.period) + 0.5) * self.period - margin
        return margin

    def keeps(self, margin: float, best: float) -> bool:
        """Whether to go on from there."""
        up = self.up
        self.up |= self.turns and margin - best > JUMP
        return (margin > best or margin - best < -JUMP) if up else margin < best


RULES: Mapping[str, Callable[[float], Rule]] = {
    "down": lambda _: Rule(),
    "up": lambda _: Rule(up=True),
    "both": lambda _: Rule(turns=True),
    "undone": lambda period: Rule(period=period),
}


def climb(
    image: Array, rule: Rule, *, eps: float, budget: int, rng: np.random.Generator, initial: float
) -> Generator[Array, float, None]:
    """(C, H, W) -> yields what to ask, is sent its margin; ends when the label has changed."""
    _, height, width = image.shape
    candidate = np.clip(image + rng.choice((-eps, eps), size=(len(image), 1, width)), 0.0, 1.0)
    best, least, step = image, math.inf, 0
    while True:
        margin = rule.seen((yield candidate))
        if margin < 0.0:
            return
        if step == 0 or rule.keeps(margin, least):
            best, least = candidate, margin
        size = round(math.sqrt(share(step, budget, initial) * height * width))
        candidate = with_square(image, best, eps, min(max(size, 1), height, width), rng)
        step += 1


def margins(probs: Array, y: Array) -> Array:
    """(N, C), (N,) -> the label's log-probability less the largest other's; (N,)."""
    logs = np.log(np.maximum(np.asarray(probs, np.float64), _LEAST))
    each = np.arange(len(y))
    own = logs[each, y]
    logs[each, y] = -np.inf
    return np.asarray(own - logs.max(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Attacked:
    """queries: (N,) until the label changed, 0 where it did not; x_adv: (N, C, H, W) what was asked last."""

    queries: Array
    x_adv: Array


def attack(
    ask: Ask, x: Array, y: Array, rule: Callable[[], Rule], *, eps: float, budget: int, seed: int, initial: float = 0.8
) -> Attacked:
    """(N, C, H, W), (N,) labels -> every image's own attack; what they ask in one round travels together."""
    exact = np.asarray(x, np.float64)
    walks = {
        i: climb(exact[i], rule(), eps=eps, budget=budget, rng=np.random.default_rng([seed, i]), initial=initial)
        for i in range(len(x))
    }
    asked = np.array(x, np.float32)
    for i, walk in walks.items():
        asked[i] = next(walk)
    queries = np.zeros(len(x), np.int64)
    for made in range(1, budget + 1):
        rows = np.array(list(walks))
        if not len(rows):
            break
        for i, margin in zip(rows, margins(ask(asked[rows]), y[rows]), strict=True):
            try:
                candidate = walks[i].send(float(margin))
            except StopIteration:
                queries[i] = made
                del walks[i]
            else:
                if made < budget:
                    asked[i] = candidate
    return Attacked(queries, asked)
