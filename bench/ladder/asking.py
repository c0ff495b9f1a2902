"""A thief's queries behind an arm, once: what he was told, row by row, whatever he makes of it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from adversary import shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench.ladder import arms, sets
from bench.ladder.arms import BARE, FULL
from bench.monitors.ground import ground, softmax
from bench.monitors.kept import once


@lru_cache(maxsize=2)
def _sent(data: str, queried: str, n: int, seed: int, repeats: int) -> Array:
    x = sets.queries(data, queried, n, seed, repeats)
    x.flags.writeable = False
    return x


@dataclass(frozen=True, slots=True)
class Asking:
    """n rows of a set. repeats: of each image, with noise on each; accounts, patient: of `arms.Laddered`."""

    data: str
    queried: str
    arm: str
    n: int
    seed: int = 0
    accounts: int = 1
    patient: bool = False
    repeats: int = 1

    @property
    def label(self) -> str:
        """What is being done."""
        how = ", patient" if self.patient else ""
        return f"{self.data}: {self.n:,} of {self.queried} x{self.repeats}, {self.arm}, {self.accounts} account(s){how}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return 5.0 if self.arm == BARE else 5.0 + self.n * 0.003

    @property
    def name(self) -> str:
        """Under which it is kept."""
        code = sha256(open(sets.__file__ or "", "rb").read())  # noqa: PTH123, SIM115
        key = shelf.key(unit=repr(self), sets=code, guard=arms.print_of(self.data, self.arm))
        return f"{self.data}_ladder_{self.queried}_{self.arm}_{key}"

    def queries(self) -> Array:
        """(N, ...) what is sent."""
        return _sent(self.data, self.queried, self.n, self.seed, self.repeats)

    def do(self) -> None:
        """Ask, unless that is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """p: (N, C), not a number where nothing came; outcome, level: (N,); seconds: that the run took, simulated."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        x = self.queries()
        if self.arm == BARE:
            p, nothing = softmax(ground(self.data).model.logits(x)), np.zeros(len(x), np.int64)
            return {"p": p, "outcome": nothing + FULL, "level": nothing, "seconds": np.array(len(x) * arms.STEP_S)}
        service = arms.laddered(self.data, self.seed, self.arm, accounts=self.accounts, patient=self.patient)
        began = service.clock.now
        got = service.ask(x, "thief")
        return {
            "p": got.p, "outcome": got.outcome, "level": got.level, "seconds": np.array(service.clock.now - began),
        }  # fmt: skip
