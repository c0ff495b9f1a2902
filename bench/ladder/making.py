"""Thieves who make their queries from the victim's answers: the adversary's own attacks, as they are.

data-free   a generator looks for images on which copy and victim differ (Truong et al. 2021, arXiv:2011.14779)
jbda        a copy grown from 150 images of the victim's kind by steps of its own gradients (Papernot et al. 2017)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.catalogue import CATALOGUE
from adversary.gradients import one_thread
from bench.ladder import arms
from bench.ladder.arms import BARE, FULL
from bench.monitors import thefts
from bench.monitors.client import Bare, Client
from bench.monitors.ground import ground
from bench.monitors.kept import once

_OPTIONS: dict[str, dict[str, Any]] = {"data-free": {}, "jbda": {"answers": "scores"}}
ATTACKS = tuple(_OPTIONS)


@dataclass(frozen=True, slots=True)
class Making:
    """One attack to the end of its budget of n rows."""

    data: str
    attack: str
    arm: str
    n: int
    seed: int = 0
    patient: bool = False

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.attack}, {self.n:,} rows, {self.arm}{', patient' if self.patient else ''}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return self.n * 0.01

    @property
    def name(self) -> str:
        """Under which it is kept."""
        key = shelf.key(
            unit=repr(self), options=_OPTIONS[self.attack], code=serving.code_digest("adversary.extraction"),
            guard=arms.print_of(self.data, self.arm),
        )  # fmt: skip
        return f"{self.data}_ladder_{self.attack}_{self.arm}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """agrees: (N,) the last copy with the victim; outcome, level: of each row, in order."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        on, entry = ground(self.data), CATALOGUE[self.attack]
        service = None if self.arm == BARE else arms.laddered(self.data, self.seed, self.arm, patient=self.patient)
        client = Client(Bare(on.model) if service is None else service, None, name="thief")
        x = thefts.pool(self.data, "own")
        with one_thread():
            *_, copy = entry.load_extraction()(
                client, x, np.full(len(x), -1), budget=self.n, rng=np.random.default_rng(self.seed),
                classes=on.classes, **_OPTIONS[self.attack],
            )  # fmt: skip
            judged = on.unit(on.quiet.images)
            agrees = np.asarray(copy(judged) == on.model.labels(judged))
        nothing = np.zeros(client.tally.rows, np.int64)
        outcome, level = (nothing + FULL, nothing) if service is None else (service.all.outcome, service.all.level)
        return {"agrees": agrees, "outcome": outcome, "level": level}
