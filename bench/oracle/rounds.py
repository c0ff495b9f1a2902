"""Ratios of two senders' rates: pairs of short rounds, one right after the other, who is first changing each time.

So what else the machine does falls on both, and a pair on which it did not is one among many: the median of the pairs'
ratios is told, and their quartiles.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np

from adversary.attack import Array
from bench.oracle.clients import Clients, Send
from bench.oracle.kinds import Kind

_FEW = 3  # calls that say how long one takes
_DISTINCT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class How:
    """rounds: pairs a sender; round_s: about so long is each half of a pair; rest_s: after each, for others."""

    rounds: int
    round_s: float
    rest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is sent where, and how much of it at once."""

    endpoint: str
    kind: Kind
    batch: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One sender in one setting. rates: rows a second, median; ratio: over the plain loop's, median and quartiles."""

    endpoint: str
    kind: str
    batch: int
    concurrency: int
    sender: str
    rounds: int
    calls: int
    plain_rate: float
    rate: float
    ratio: float
    quartiles: tuple[float, float]


def batches(kind: Kind, batch: int) -> list[Array]:
    """Some distinct ones, uniform noise."""
    rng = np.random.default_rng(0)
    n = max(1, min(16, _DISTINCT_BYTES // (batch * kind.row_bytes)))
    return [rng.random((batch, *kind.shape), np.float32) for _ in range(n)]


def measure(clients: Clients, setting: Setting, how: How) -> Iterator[Measured]:
    """Every sender against the plain loop."""
    distinct = batches(setting.kind, setting.batch)
    concurrency = setting.concurrency

    def plain(xs: Sequence[Array]) -> None:
        clients.plain(xs, concurrency)

    few = seconds(plain, cycled(distinct, _FEW * concurrency)) / (_FEW * concurrency)
    calls = max(concurrency, ceil(how.round_s / few))
    xs = cycled(distinct, calls)
    for name, send in clients.senders(concurrency, distinct).items():
        send(xs[:concurrency])
        taken = paired(partial(seconds, plain, xs), partial(seconds, send, xs), how)
        yield told(setting, name, calls, calls * setting.batch, taken)


def told(setting: Setting, name: str, calls: int, rows: int, taken: Sequence[tuple[float, float]]) -> Measured:
    """Seconds of the plain loop and of a sender, a pair a round, for so many rows -> what is told of them."""
    plain, other = np.array(taken, np.float64).T
    low, ratio, high = np.quantile(plain / other, (0.25, 0.5, 0.75))
    return Measured(
        setting.endpoint, setting.kind.name, setting.batch, setting.concurrency, name, len(taken), calls,
        float(np.median(rows / plain)), float(np.median(rows / other)), float(ratio), (float(low), float(high)),
    )  # fmt: skip


def paired(first: Callable[[], float], second: Callable[[], float], how: How) -> list[tuple[float, float]]:
    """Both, so many times, who is first changing; always told in this order."""
    taken = []
    for i in range(how.rounds):
        time.sleep(how.rest_s)
        if i % 2:
            b = second()
            taken.append((first(), b))
        else:
            a = first()
            taken.append((a, second()))
    return taken


def seconds(send: Send, xs: Sequence[Array]) -> float:
    """That it takes."""
    started = time.perf_counter()
    send(xs)
    return time.perf_counter() - started


def cycled(distinct: Sequence[Array], n: int) -> list[Array]:
    """So many, over and over."""
    return [distinct[i % len(distinct)] for i in range(n)]
