"""Benign traffic through a guarded victim, a block of callers at a time: who is suspected, who is refused.

A block has a store of its own. A caller's level is his highest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary import shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench.monitors import traffic, video
from bench.monitors.guarded import DEFAULT, Defence, Guarded, guarded, print_of
from bench.monitors.kept import with_facts

_MS_A_QUERY = 2.5
_ABOUT = {
    "natural": 52,
    "retries": 52,
    "video": 100,
    "noisy_video": 100,
    "one_class": 62,
    "hot_keys": 250,
    "batch_job": 1,
}
"""Callers of a block: as many, or a few less."""
_ROWS = {"natural": 5000, "retries": 6200, "video": 7400, "noisy_video": 7400, "one_class": 5000, "hot_keys": 5400,
         "batch_job": 10_000}  # fmt: skip
_BATCH_JOBS = 300  # a job stands for so many callers, where their number is asked for


def blocks(kind: str, callers: int) -> int:
    """How many blocks have so many callers."""
    each = _BATCH_JOBS if kind == "batch_job" else _ABOUT[kind]
    return max(1, -(-callers // each))


@dataclass(frozen=True, slots=True)
class Benign:
    """One block of one kind of traffic. rows: of each caller at most; 0: all."""

    data: str
    kind: str
    block: int
    seed: int = 0
    most: int = 0
    defence: Defence = DEFAULT

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: benign, {self.kind}, block {self.block}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return (self.most or _ROWS[self.kind]) * _MS_A_QUERY / 1000.0

    @property
    def name(self) -> str:
        """Under which it is kept."""
        made = [sha256(open(module.__file__ or "", "rb").read()) for module in (traffic, video)]  # noqa: PTH123, SIM115
        key = shelf.key(
            unit=[self.kind, self.block, self.seed, self.most], traffic=made, guard=print_of(self.data, self.defence)
        )
        return f"{self.data}_benign_{self.kind}_{self.block}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """A value a caller: how many queries, his highest level, how many were refused, how many of them by detectors
        alone, where he was first hostile.
        """
        return with_facts(self, self._run)[0]

    def blame(self) -> dict[str, int]:
        """By what queries were refused, how often."""
        blame: dict[str, int] = with_facts(self, self._run)[1]["blame"]
        return blame

    def _run(self) -> tuple[dict[str, Array], dict[str, Any]]:
        service = guarded(self.data, self.seed, self.defence, warm=0)
        return asked(service, self.kind, self.block, self.seed, self.most), {"blame": service.blame}


def asked(service: Guarded, kind: str, block: int, seed: int, most: int) -> dict[str, Array]:
    """A value a caller, of one block: see `Benign.made`."""
    rng = np.random.default_rng([seed, block, sorted(traffic.KINDS).index(kind)])
    callers = traffic.KINDS[kind](service.on, rng)
    places = {caller.name: i for i, caller in enumerate(callers)}
    counts = np.zeros((5, len(callers)), np.int64)
    rows, level, refused, own, hostile = counts
    for done, (name, row) in enumerate(traffic.interleaved(callers, rng)):
        if most and done >= most:
            break
        i, told = places[name], service.answer(row, name)
        rows[i] += 1
        level[i] = max(level[i], int(told.level[0]))
        refused[i] += int(told.refused[0])
        own[i] += int(told.own[0])
        if told.level[0] == 3 and not hostile[i]:
            hostile[i] = rows[i]
    return {"rows": rows, "level": level, "refused": refused, "own": own, "hostile_at": hostile}
