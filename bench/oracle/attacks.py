"""Batched attacks through the oracle, against the plain loop that sends batches of the same sizes one after the other.

Two ratios each: of the time that the attack spends asking, which is the oracle's, and of all its time, in which it also
works out what to ask next.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.evasion import hop_skip_jump, nes, square
from adversary.oracle import Oracle, Record, Reply
from bench.oracle.clients import Clients
from bench.oracle.kinds import FAST
from bench.oracle.rounds import How, Measured, Setting, paired, seconds, told

ASKING, IN_ALL = ", asking", ", in all"
_NEAR = 1e-3  # too small an eps to succeed: the whole budget is spent


@dataclass(slots=True)
class Timed:
    """An oracle, and the seconds spent in it."""

    oracle: Oracle
    seconds: float = 0.0

    def labels(self, x: Array) -> Any:
        """As the oracle's."""
        return self._timed(self.oracle.labels, x)

    def probabilities(self, x: Array) -> Any:
        """As the oracle's."""
        return self._timed(self.oracle.probabilities, x)

    def _timed(self, ask: Callable[[Array], Any], x: Array) -> Any:
        started = time.perf_counter()
        answer = ask(x)
        self.seconds += time.perf_counter() - started
        return answer


Attack = Callable[[Timed], object]


def attacks(oracle: Oracle, setting: Setting, calls: int) -> dict[str, Attack]:
    """By name: those that make sense of what the endpoint answers. calls: of a whole batch, about so many."""
    batch, rows = setting.batch, setting.batch * calls
    x = strokes()[:1] if setting.kind.shape == (1, 28, 28) else np.full((1, *setting.kind.shape), 0.5, np.float32)
    y = oracle.labels(x)

    def ready(attack: Callable[..., object], **options: Any) -> Attack:
        return lambda timed: attack(timed, x, y, eps=_NEAR, budget=rows, rng=np.random.default_rng(0), **options)

    found = {"NES": ready(nes.attack, samples=2 * batch, batch=batch)}
    if setting.endpoint != FAST:
        found["HopSkipJump"] = ready(hop_skip_jump.attack, starts=_other(oracle, int(y[0])), batch=batch)
    if batch == 1:
        found["Square"] = ready(square.attack)
    return found


def strokes() -> Array:
    """(4, 1, 28, 28): drawn by hand, a one, a nought, a seven and a minus."""
    x = np.zeros((4, 1, 28, 28), np.float32)
    x[0, 0, 4:24, 13:16] = 1.0
    x[1, 0, 5:23, 8:20] = 1.0
    x[1, 0, 8:20, 11:17] = 0.0
    x[2, 0, 5:8, 7:20] = 1.0
    x[2, 0, 8:24, 17:20] = 1.0
    x[3, 0, 13:16, 5:23] = 1.0
    return x


def _other(oracle: Oracle, y: int) -> Array:
    """Something of another class."""
    x = strokes()
    return np.asarray(x[oracle.labels(x) != y][:1])


def measure(clients: Clients, setting: Setting, how: How, calls: int) -> Iterator[Measured]:
    """Each attack, twice: `asking`, and `in all`."""
    for name, attack in attacks(clients.oracle, setting, calls).items():
        sizes = _sizes(clients.oracle, attack)
        noise = np.random.default_rng(1).random((max(sizes), *setting.kind.shape), np.float32)
        xs = [noise[:n] for n in sizes]
        asking: list[float] = []

        def run(attack: Attack = attack, asking: list[float] = asking) -> float:
            timed = Timed(clients.oracle)
            started = time.perf_counter()
            attack(timed)
            asking.append(timed.seconds)
            return time.perf_counter() - started

        whole = paired(partial(seconds, clients.plain, xs), run, how)
        for what, taken in (
            (ASKING, [(plain, asked) for (plain, _), asked in zip(whole, asking, strict=True)]),
            (IN_ALL, whole),
        ):
            yield told(setting, f"{name}{what}", len(sizes), sum(sizes), taken)


def _sizes(oracle: Oracle, attack: Attack) -> list[int]:
    """Rows in each of its calls."""
    sizes: list[int] = []

    def note(x: Array, _reply: Reply, _record: Record) -> None:
        sizes.append(len(x))

    oracle.listeners.append(note)
    attack(Timed(oracle))
    oracle.listeners.remove(note)
    return sizes
