"""What is run, and from runs to figures, as plain data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.runner import NEVER
from adversary.scores import rate
from adversary.shelf import Shelf
from bench.detection.work import Work
from bench.ladder import arms
from bench.ladder.arms import BARE, OUTCOMES
from bench.ladder.asking import Asking
from bench.ladder.clones import EPOCHS, REPEATS, Clone, Way
from bench.ladder.honest import NOBODY, Honest
from bench.ladder.making import ATTACKS, Making
from bench.monitors.ground import home

OUT_OF_PLACE = ("photos", "foreign", "noise", *ATTACKS)
WAYS: tuple[Way, ...] = ("scores", "labels", "averages", "recovers")
RECOMMENDED, KEEPING, DEFAULT = "mislead", "labels", "deny"
HONEST = ("natural", "retries", "hot_keys", "video")
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Scale:
    """How many rows are sent.

    main, own: of photographs and of the victim's kind. side: of either, by who waits, averages
               or spreads over accounts.
    small:     of other sets. made: by attacks that make their queries.
    accounts:  over how many the spread thieves spread. seeds: of the main ones.
    honest:    kinds of benign traffic; blocks: of natural traffic; most: rows of a block, 0: all.
    photos:    the set that stands for the photographs.
    """

    data: str = "cifar10"
    main: int = 20_000
    own: int = 10_000
    side: int = 4000
    small: int = 2000
    made: tuple[tuple[str, int], ...] = (("data-free", 1400),)
    accounts: tuple[int, ...] = (100, 10)
    seeds: int = 1
    honest: tuple[str, ...] = HONEST
    blocks: int = 1
    most: int = 0
    photos: str = "photos"


FULL = Scale()


@dataclass(frozen=True, slots=True)
class Run:
    """A thief behind an arm."""

    clone: Clone | Making

    @property
    def key(self) -> dict[str, Any]:
        """What it is."""
        one = self.clone
        if isinstance(one, Making):
            return {"queried": one.attack, "way": "scores", "arm": one.arm, "patient": one.patient, "accounts": 1,
                    "seed": one.seed, "rows": one.n}  # fmt: skip
        asking = one.asking
        return {
            "queried": asking.queried, "way": one.way, "arm": asking.arm, "patient": asking.patient,
            "accounts": asking.accounts, "seed": asking.seed, "rows": asking.n,
        }  # fmt: skip

    def agrees(self) -> Array:
        """(N,) of the copy."""
        if not _made(self.clone):
            self.clone.do()
        return _kept(self.clone)

    def got(self) -> Mapping[str, Array]:
        """outcome and level of each row."""
        return self.clone.made() if isinstance(self.clone, Making) else self.clone.asking.made()

    @property
    def done(self) -> bool:
        """Whether its figures are there, and those that they are held against."""
        return _made(self.clone) and _made(self.bare().clone)

    def bare(self) -> "Run":
        """The same without a defence: without one there is nothing to recover."""
        one = self.clone
        if isinstance(one, Making):
            return Run(Making(one.data, one.attack, BARE, one.n, one.seed))
        way: Way = "scores" if one.way == "recovers" else one.way
        asking = one.asking
        return Run(Clone(Asking(asking.data, asking.queried, BARE, asking.n, asking.seed, repeats=asking.repeats), way))


@lru_cache(maxsize=256)
def _kept(clone: Clone | Making) -> Array:
    """How a copy agrees, of the shelf; its queries are drawn anew for that. Raises LookupError where it is not made."""
    shelf = Shelf(home())
    if isinstance(clone, Clone) and shelf.get(clone.asking.name) is None:
        raise LookupError(clone.label)
    there = shelf.get(clone.name if isinstance(clone, Making) else clone.lesson().name)
    if there is None:
        raise LookupError(clone.label)
    return there[0]["agrees"]


def _made(clone: Clone | Making) -> bool:
    try:
        _kept(clone)
    except LookupError:
        return False
    return True


def runs(scale: Scale) -> list[Run]:
    """All, what matters most first."""
    found = [run for seed in range(scale.seeds) for run in _main(scale, seed)]
    found += [*_hurried(scale), *_patient(scale, "scores"), *_averaging(scale, scale.photos), *_small(scale, "noise")]
    found += _spread(scale)
    for attack, n in scale.made:
        found += [Run(Making(scale.data, attack, arm, n)) for arm in _ARMS]
    found += [*_patient(scale, "recovers"), _run(scale, scale.photos, KEEPING, scale.side, "scores", patient=True)]
    found += [*_patient(scale, "labels"), *_small(scale, "foreign")]
    found += [_run(scale, "own", arm, scale.side, "labels") for arm in (BARE, RECOMMENDED)]
    return [*found, *_averaging(scale, "own")]


_ARMS = (BARE, DEFAULT, RECOMMENDED)


def _main(scale: Scale, seed: int) -> Iterator[Run]:
    for arm in _ARMS:
        yield _run(scale, scale.photos, arm, scale.main, "scores", seed=seed)
        yield _run(scale, "own", arm, scale.own, "scores", seed=seed)


def _hurried(scale: Scale) -> Iterator[Run]:
    """Who makes something else of the same answers."""
    yield _run(scale, scale.photos, RECOMMENDED, scale.main, "recovers")
    for arm in _ARMS:
        yield _run(scale, scale.photos, arm, scale.main, "labels")


def _patient(scale: Scale, way: Way) -> Iterator[Run]:
    """Who waits: he has every answer in the end, so that what degraded ones teach is seen."""
    if way != "recovers":
        yield _run(scale, scale.photos, BARE, scale.side, way)
    yield _run(scale, scale.photos, RECOMMENDED, scale.side, way, patient=True)


def _averaging(scale: Scale, which: str) -> Iterator[Run]:
    for arm in (BARE, RECOMMENDED, DEFAULT):
        yield _run(scale, which, arm, scale.side, "averages")


def _spread(scale: Scale) -> Iterator[Run]:
    for accounts in scale.accounts:
        for arm in (DEFAULT, RECOMMENDED):
            yield _run(scale, scale.photos, arm, scale.side, "scores", accounts=accounts)


def _small(scale: Scale, which: str) -> Iterator[Run]:
    for arm in _ARMS:
        yield _run(scale, which, arm, scale.small, "scores")


def _run(
    scale: Scale, queried: str, arm: str, n: int, way: Way, *, seed: int = 0, patient: bool = False, accounts: int = 1
) -> Run:
    repeats = REPEATS if way == "averages" else 1
    return Run(Clone(Asking(scale.data, queried, arm, n, seed, accounts, patient, repeats), way))


def honest(scale: Scale) -> list[Honest]:
    """Benign blocks: of natural traffic several, and behind the default policy, too."""
    found = [
        Honest(scale.data, "natural", arm, seed, scale.most)
        for arm in (RECOMMENDED, DEFAULT)
        for seed in range(scale.blocks)
    ]
    return found + [Honest(scale.data, kind, RECOMMENDED, 0, scale.most) for kind in scale.honest if kind != "natural"]


def units(scale: Scale) -> list[Sequence[Work]]:
    """In phases, so that what matters most is there first."""
    return [*([run.clone] for run in runs(scale)), honest(scale)]


def figures(scale: Scale, *, done: bool = False) -> dict[str, Any]:
    """All of it. done: without what has not been run."""
    told = [_told(run) for run in runs(scale) if not done or run.done]
    return {
        "data": scale.data, "main": scale.photos, "epochs": EPOCHS, "repeats": REPEATS, "step_s": arms.STEP_S,
        "arms": {arm: {**arms.ARMS[arm]} for arm in arms.ARMS}, "thieves": told, "honest": _honest(scale, done=done),
    }  # fmt: skip


def _told(run: Run) -> dict[str, Any]:
    agrees, bare, got = run.agrees(), run.bare().agrees(), run.got()
    levels = [int(np.argmax(got["level"] >= i)) + 1 if (got["level"] >= i).any() else NEVER for i in (1, 2, 3)]
    return {
        **run.key, "sent": len(got["outcome"]),
        "outcomes": {name: int((got["outcome"] == i).sum()) for i, name in enumerate(OUTCOMES)},
        "levels": levels, "hours": None if "seconds" not in got else float(got["seconds"]) / 3600.0,
        "agreement": rate(agrees).plain(), "lost": lost(bare, agrees),
    }  # fmt: skip


def lost(bare: Array, agrees: Array) -> dict[str, float]:
    """Points of agreement, with their 95 % interval: pairs of answers to the same test images, normal approximation."""
    gap = 100.0 * (bare.astype(float) - agrees.astype(float))
    half = _Z95 * float(gap.std()) / float(np.sqrt(len(gap)))
    return {"points": float(gap.mean()), "low": float(gap.mean()) - half, "high": float(gap.mean()) + half}


def _honest(scale: Scale, *, done: bool) -> list[dict[str, Any]]:
    found, shelf = [], Shelf(home())
    there = [one for one in honest(scale) if not done or shelf.get(one.name) is not None]
    for kind, arm in dict.fromkeys((one.kind, one.arm) for one in there):
        parts = [one.made() for one in there if (one.kind, one.arm) == (kind, arm)]
        found.append({"kind": kind, "arm": arm, **clean(parts)})
    return found


def clean(parts: Sequence[Mapping[str, Array]]) -> dict[str, Any]:
    """Accuracy with and without the arm; the difference's interval takes the worst ends of what was lost and won."""
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    known = whole["truth"] != NOBODY
    right, without = whole["told"] == whole["truth"], whole["own"] == whole["truth"]
    down, up = rate((without & ~right)[known]), rate((right & ~without)[known])
    return {
        "callers": sum(len(np.unique(part["caller"])) for part in parts), "rows": len(known),
        "outcomes": {name: int((whole["outcome"] == i).sum()) for i, name in enumerate(OUTCOMES)},
        "changed": rate(whole["told"] != whole["own"]).plain(), "judged": int(known.sum()),
        "without": rate(without[known]).plain(), "with": rate(right[known]).plain(),
        "points": 100.0 * (up.value - down.value) if known.any() else None,
        "low": 100.0 * (up.interval[0] - down.interval[1]), "high": 100.0 * (up.interval[1] - down.interval[0]),
        "levels": [int((whole["level"] >= i).sum()) for i in (1, 2, 3)],
    }  # fmt: skip
