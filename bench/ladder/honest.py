"""What the ladder costs honest callers: benign traffic of `bench.monitors.traffic`, and what each row is told.

The images are those of the benign half of the test split; a block of callers shares one history.
"""

from dataclasses import dataclass

import numpy as np

from adversary import shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench.ladder import arms
from bench.monitors import traffic, video
from bench.monitors.ground import ground
from bench.monitors.kept import once

NOBODY = -1
"""The label of a row that was not answered, and the true one of a row that is no image of the split."""


@dataclass(frozen=True, slots=True)
class Honest:
    """One block of one kind of traffic. most: rows; 0: all."""

    data: str
    kind: str
    arm: str
    seed: int = 0
    most: int = 0

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: benign, {self.kind}, {self.arm}, seed {self.seed}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return 20.0

    @property
    def name(self) -> str:
        """Under which it is kept."""
        made = [sha256(open(module.__file__ or "", "rb").read()) for module in (traffic, video)]  # noqa: PTH123, SIM115
        key = shelf.key(unit=repr(self), traffic=made, guard=arms.print_of(self.data, self.arm))
        return f"{self.data}_ladder_benign_{self.kind}_{self.arm}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """A value a row: truth, own (the victim's label), told, outcome, level, caller (a number)."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        on, rng = ground(self.data), np.random.default_rng([self.seed, 3, sorted(traffic.KINDS).index(self.kind)])
        callers = traffic.KINDS[self.kind](on, rng)
        truth = {row.tobytes(): int(y) for row, y in zip(on.unit(on.quiet.images), on.quiet.labels, strict=True)}
        place = {caller.name: i for i, caller in enumerate(callers)}
        service = arms.laddered(self.data, self.seed, self.arm, warm=0)
        found: list[tuple[int, ...]] = []
        for done, (name, row) in enumerate(traffic.interleaved(callers, rng)):
            if self.most and done >= self.most:
                break
            logits = on.model.logits(row)
            y, outcome, level = service.row(row, logits, name)
            told = NOBODY if y is None else int(y.argmax())
            found.append((truth.get(row.tobytes(), NOBODY), int(logits.argmax()), told, outcome, level, place[name]))
        names = ("truth", "own", "told", "outcome", "level", "caller")
        return dict(zip(names, np.array(found, np.int64).T, strict=True))
