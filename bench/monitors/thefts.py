"""Extractions of the guarded victim: after how many queries they are refused, and what the budget leaves of a copy.

    jbda, t-rnd          the attacks that PRADA was published with, from 100 inputs of the thief's own, as there
    knockoff, copycat    natural images of another data set
    data-free            images of the thief's own making
    knockoff-own         images of the victim's own kind: by looks this is use; only the extraction budget speaks

Thieves have images that neither the victim nor the profile has learned from; none is in benign traffic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.catalogue import CATALOGUE
from adversary.data.foreign import fit
from adversary.gradients import one_thread
from adversary.runner import NEVER
from adversary.unit import wants
from bench.monitors.client import Bare, Client, Enough, Service
from bench.monitors.ground import ground
from bench.monitors.guarded import DEFAULT, Defence, guarded, print_of
from bench.monitors.kept import once

SEEDS = 100
MOST = 3000
"""Queries after which a run that nobody noticed ends."""


@dataclass(frozen=True, slots=True)
class Thief:
    """attack: of the catalogue; pool: `own`, of the victim's kind, or `foreign`."""

    name: str
    attack: str
    pool: str
    options: Mapping[str, Any]


_SEEDED = {"seeds": SEEDS}
THIEVES: Mapping[str, Thief] = {
    one.name: one
    for one in (
        Thief("jbda", "jbda", "own", _SEEDED),
        Thief("t-rnd", "t-rnd", "own", _SEEDED),
        Thief("knockoff", "knockoff-random", "foreign", {}),
        Thief("copycat", "copycat", "foreign", {}),
        Thief("data-free", "data-free", "own", {}),
        Thief("knockoff-own", "knockoff-random", "own", {"epochs": 6}),
    )
}
OUT_OF_PLACE = ("jbda", "t-rnd", "knockoff", "copycat", "data-free")
PUBLISHED = {"jbda": 120, "t-rnd": 140}
"""PRADA's queries to detection on MNIST (arXiv:1805.02628), the first 100 being natural."""


def pool(data: str, which: str) -> Array:
    """(N, ...) what a thief may send."""
    on = ground(data)
    if which == "own":
        return np.asarray(on.unit(on.thief.images))
    other = on.other()
    return fit(other.images[:20_000], on.unit(on.thief.images[:1]).shape[1:])


def steal(thief: Thief, client: Client, x: Array, budget: int, seed: int) -> Any:
    """The last copy; None where the run was ended before there was one."""
    entry, copy = CATALOGUE[thief.attack], None
    options = {**thief.options, **({"classes": 10} if "classes" in wants(entry) else {})}
    try:
        with one_thread():
            made = entry.load_extraction()(
                client, x, np.full(len(x), -1), budget=budget, rng=np.random.default_rng(seed), **options
            )
            for copy in made:  # noqa: B007 - the last one counts
                pass
    except Enough:
        pass
    return copy


@dataclass(frozen=True, slots=True)
class Theft:
    """One run until the first refusal, or MOST queries."""

    data: str
    thief: str
    seed: int
    defence: Defence = DEFAULT

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.thief}, guarded, seed {self.seed}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return 10.0

    @property
    def name(self) -> str:
        """Under which it is kept."""
        key = shelf.key(
            thief=[self.thief, repr(THIEVES[self.thief]), self.seed, MOST],
            code=serving.code_digest("adversary.extraction"), guard=print_of(self.data, self.defence),
        )  # fmt: skip
        return f"{self.data}_theft_{self.thief}_{self.seed}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """flagged: the first query at which something was done, NEVER; levels: the first at each; blame."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        thief, service = THIEVES[self.thief], guarded(self.data, self.seed, self.defence)
        client = Client(service, None, name="thief", until=1, most=MOST)
        steal(thief, client, pool(self.data, thief.pool), CATALOGUE[thief.attack].budget, self.seed)
        blame = max(service.blame, key=lambda by: service.blame[by], default="")
        return {
            "flagged": np.array([client.tally.flagged]), "levels": np.array([client.tally.levels]),
            "rows": np.array([client.tally.rows]), "blame": np.array([blame], np.str_),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Copying:
    """One in-distribution extraction to the end, and how its copy agrees with the victim. guarded: else bare."""

    data: str
    seed: int
    guarded: bool
    defence: Defence = DEFAULT

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: knockoff-own, {'guarded' if self.guarded else 'bare'}, to the end, seed {self.seed}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return {"mnist": 60.0, "cifar10": 400.0}[self.data]

    @property
    def name(self) -> str:
        """Under which it is kept."""
        guard = print_of(self.data, self.defence) if self.guarded else {"victim": ground(self.data).sha256}
        key = shelf.key(
            thief=[repr(THIEVES["knockoff-own"]), self.seed], code=serving.code_digest("adversary.extraction"),
            guard=guard,
        )  # fmt: skip
        return f"{self.data}_copying_{'guarded' if self.guarded else 'bare'}_{self.seed}_{key}"

    def do(self) -> None:
        """Run it, unless it is done."""
        self.made()

    def made(self) -> dict[str, Array]:
        """agrees: (N,) with the victim on the benign half of the test split; sent, answered, levels, flagged."""
        return once(self, self._run)

    def _run(self) -> dict[str, Array]:
        on = ground(self.data)
        return copied(
            self.data, guarded(self.data, self.seed, self.defence) if self.guarded else Bare(on.model), self.seed
        )


def copied(data: str, service: Service, seed: int, most: int | None = None) -> dict[str, Array]:
    """In-distribution Knockoff to the end: agrees (N,) of its last copy, and what became of its queries.

    most: images that the thief has; None: all.
    """
    on, thief = ground(data), THIEVES["knockoff-own"]
    client, x = Client(service, None, name="thief"), pool(data, thief.pool)[:most]
    copy = steal(thief, client, x, len(x), seed)
    judged = on.unit(on.quiet.images)
    agrees = np.asarray(copy(judged) == on.model.labels(judged)) if copy is not None else np.zeros(len(judged), bool)
    return {
        "agrees": agrees, "sent": np.array(client.tally.rows), "answered": np.array(client.tally.answered),
        "levels": np.array(client.tally.levels), "flagged": np.array(client.tally.flagged),
    }  # fmt: skip


def noticed(data: str, thief: str, runs: int, defence: Defence = DEFAULT) -> tuple[Array, list[str]]:
    """(N,) queries until something was done, NEVER where nothing was; by what."""
    parts = [Theft(data, thief, seed, defence).made() for seed in range(runs)]
    return np.array([int(part["flagged"][0]) for part in parts]), [str(part["blame"][0]) for part in parts]


__all__ = ["MOST", "NEVER", "OUT_OF_PLACE", "PUBLISHED", "SEEDS", "THIEVES", "Copying", "Theft", "noticed"]
