"""What is done for the table beyond crafting, in pieces that are kept: fits, scores, purified labels, adaptive attacks.

The name of a piece has everything in it that decides what comes out: the victim, the networks and Guard's code (by the
profile's place), the inputs, the options.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adversary import shelf
from adversary.attack import Array
from adversary.data.cache import write_atomic
from adversary.shelf import Shelf
from bench import profiles
from bench.detection import adaptive, backdoors, craft, fitted, purify, scoring, stagework
from bench.detection.subjects import Subject, subject
from guard import learning

ROWS = 250
UNTOUCHED, QUIET = "untouched", "quiet"
"""Sets: the images that attacks start from, as they are; and other test images, for false alarms."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything. clean: rows for the profile, None for all there are; purified: purifiers, too."""

    hunted: int = 1000
    quiet: int = 5000
    singly: int = 2000
    aware: int = 200
    stamped: int = 1000
    clean: int | None = None
    attacks: tuple[str, ...] = ()
    purified: bool = True


def hunted(data: str, scale: Scale) -> int:
    """How many images are attacked."""
    return min(scale.hunted, len(subject(data).hunted_x))


def inputs(data: str, name: str, scale: Scale) -> Array:
    """(N, C, H, W) of a set."""
    on = subject(data)
    if name == QUIET:
        return on.quiet_x[: scale.quiet]
    if name == UNTOUCHED:
        return on.hunted_x[: hunted(data, scale)]
    return craft.cell(data, name, hunted(data, scale)).x_adv


def _crafted(data: str, name: str, scale: Scale) -> list[str]:
    return [craft.name_of(unit) for unit in craft.units(data, hunted(data, scale), [name])]


def _kept() -> Shelf:
    return Shelf(craft.home())


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of a victim that there are not yet."""

    data: str
    cost: float = 1500.0

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: training networks"

    @property
    def missing(self) -> tuple[str, ...]:
        """Those that `python -m bench.profiles` makes and has not made."""
        there = fitted.networks_of(self.data)
        return tuple(name for name in learning.NAMES if name not in there) if self.data in profiles.SUBJECTS else ()

    def do(self) -> None:
        """Train them, in their order."""
        given = fitted.networks_of(self.data)
        for name in self.missing:
            given |= profiles.make(self.data, (name,), lambda *_: None, given=given)
            write_atomic(profiles.place(self.data, name), given[name])


@dataclass(frozen=True, slots=True)
class Fit:
    """The profile of a victim."""

    data: str
    scale: Scale
    cost: float = 120.0

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: fitting"

    def do(self) -> None:
        """Fit it."""
        fitted.make(self.data, self.scale.clean)


@dataclass(frozen=True, slots=True)
class Score:
    """What every detector says of rows start to stop of a set, so many to a call."""

    data: str
    name: str
    start: int
    stop: int
    scale: Scale
    batch: int = scoring.BATCH

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: detectors on {self.name} {self.start}-{self.stop}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return (self.stop - self.start) * (0.5 if self.data == "photos" else 0.015 if self.batch > 1 else 0.03)

    def _name(self) -> str:
        source = [] if self.name in {QUIET, UNTOUCHED} else _crafted(self.data, self.name, self.scale)
        key = shelf.key(
            profile=fitted.place(self.data, self.scale.clean).name,
            source=source,
            rows=[self.start, self.stop],
            batch=self.batch,
        )
        return f"score_{self.data}_{self.name}_{self.start}_{key}"

    def said(self) -> scoring.Said:
        """Of these rows, from the shelf or new."""
        kept, name = _kept(), self._name()
        stored = kept.get(name)
        if stored is None:
            x = inputs(self.data, self.name, self.scale)[self.start : self.stop]
            engine = scoring.engine(fitted.profile(self.data, self.scale.clean))
            made = scoring.say(engine, stagework.Upstream(subject(self.data).onnx), x, self.batch)
            arrays = {f"score.{key}": values for key, values in made.scores.items()}
            arrays |= {f"p.{key}": values for key, values in made.p_values.items()}
            kept.put(name, {**arrays, "upstream_rows": np.array(made.upstream_rows)}, {})
            return made
        found = stored[0]
        return scoring.Said(_under("score.", found), _under("p.", found), float(found["upstream_rows"]))

    def do(self) -> None:
        """Score them, unless it is done."""
        self.said()


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def scores(data: str, name: str, scale: Scale, *, rows: int | None = None, batch: int = scoring.BATCH) -> list[Score]:
    """All pieces of a set."""
    on = subject(data)
    most = min(scale.quiet, len(on.quiet_x)) if name == QUIET else hunted(data, scale)
    most = most if rows is None else min(rows, most)
    return [Score(data, name, at, min(at + ROWS, most), scale, batch) for at in range(0, most, ROWS)]


def said(units: Sequence[Score]) -> scoring.Said:
    """Of a whole set."""
    return scoring.joined([unit.said() for unit in units])


@dataclass(frozen=True, slots=True)
class Purified:
    """Which rows of a set are labelled rightly behind a purifier."""

    data: str
    purifier: str
    name: str
    scale: Scale

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: {self.purifier} on {self.name}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        rows = self.scale.quiet if self.name == QUIET else self.scale.hunted
        return 8.0 if self.data == "photos" else rows * 0.003

    def right(self) -> tuple[Array, int]:
        """(N,), and further upstream rows a row; from the shelf or new."""
        kept = _kept()
        source = [] if self.name in {QUIET, UNTOUCHED} else _crafted(self.data, self.name, self.scale)
        profile = fitted.place(self.data, self.scale.clean).name
        key = shelf.key(profile=profile, source=source, rows=[self.scale.hunted, self.scale.quiet])
        name = f"purified_{self.data}_{self.purifier}_{self.name}_{key}"
        stored = kept.get(name)
        if stored is not None:
            return stored[0]["right"], int(stored[0]["upstream_rows"])
        on, x = subject(self.data), inputs(self.data, self.name, self.scale)
        y = (on.quiet_y if self.name == QUIET else on.hunted_y)[: len(x)]
        right, rows = purify.right(on, self.purifier, x, y)
        kept.put(name, {"right": right, "upstream_rows": np.array(rows)}, {})
        return right, rows

    def do(self) -> None:
        """Ask, unless it is done."""
        self.right()


@dataclass(frozen=True, slots=True)
class Known:
    """An attacker who knows Guard's weights: through detectors (`aware`) or through a purifier."""

    data: str
    aware: adaptive.Aware | None
    purifier: str
    scale: Scale

    @property
    def label(self) -> str:
        """What is being done."""
        return f"{self.data}: adaptive, {self.aware.name if self.aware else 'through ' + self.purifier}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return self.scale.aware * (0.4 if self.aware and "squeezing" in self.aware.through else 0.15)

    def _attacked(self, on: Subject) -> tuple[Array, Array]:
        return on.hunted_x[: self.scale.aware], on.hunted_y[: self.scale.aware]

    def found(self) -> dict[str, Array]:
        """x_adv, won (on the bare model or behind the purifier), and what the detectors say of them."""
        kept, profile = _kept(), fitted.place(self.data, self.scale.clean).name
        aware = "gradient" if self.purifier in adaptive.NETWORKS else repr(self.aware)
        key = shelf.key(profile=profile, rows=self.scale.aware, seed=craft.SEED, aware=aware, code=CODE)
        name = f"adaptive_{self.data}_{self.purifier or 'detectors'}_{key}"
        stored = kept.get(name)
        if stored is not None:
            return stored[0]
        on, eps = subject(self.data), adaptive.EPS[self.data]
        x, y = self._attacked(on)
        if self.aware is not None:
            made = self._through_detectors(on, x, y, eps)
        else:
            x_adv = adaptive.through_purifier(on, self.purifier, x, y, eps=eps, seed=craft.SEED)
            made = {"x_adv": x_adv, "won": ~purify.right(on, self.purifier, x_adv, y)[0]}
        kept.put(name, made, {"label": self.label})
        return made

    def _through_detectors(self, on: Subject, x: Array, y: Array, eps: float) -> dict[str, Array]:
        assert self.aware is not None
        upstream = stagework.Upstream(on.onnx)
        engine = scoring.engine(fitted.profile(self.data, self.scale.clean))
        stages = {stage.name: stage for stage in engine.stages}
        x_adv = adaptive.attack(on, self.aware, stages, x, y, eps=eps, seed=craft.SEED)
        said = scoring.say(engine, upstream, x_adv)
        arrays = {f"score.{key}": values for key, values in said.scores.items()}
        arrays |= {f"p.{key}": values for key, values in said.p_values.items()}
        return {"x_adv": x_adv, "won": upstream.labels(x_adv) != y, **arrays}

    def said(self) -> scoring.Said:
        """What the detectors say of its inputs."""
        found = self.found()
        return scoring.Said(_under("score.", found), _under("p.", found))

    def do(self) -> None:
        """Attack, unless it is done."""
        self.found()


CODE = 1
"""Of the adaptive attacks: another number, and they are made anew."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """A detector on a poisoned victim."""

    index: int
    scale: Scale

    @property
    def label(self) -> str:
        """What is being done."""
        return f"poisoned CIFAR-10: {backdoors.DETECTORS[self.index][0]}"

    @property
    def cost(self) -> float:
        """Seconds, about."""
        return 0.3 * self.scale.stamped if "100" in self.label else 0.03 * self.scale.stamped

    def scores(self) -> dict[str, Array]:
        """Of rows to calibrate with, of other clean ones, and of each trigger's; from the shelf or new."""
        kept = _kept()
        key = shelf.key(victim=backdoors.digest(), rows=self.scale.stamped, detector=backdoors.DETECTORS[self.index])
        name = f"backdoor_{self.index}_{key}"
        stored = kept.get(name)
        if stored is not None:
            return stored[0]
        _, stage, options = backdoors.DETECTORS[self.index]
        made = backdoors.scores(backdoors.poisoned(self.scale.stamped), stage, options)
        kept.put(name, made, {"label": self.label})
        return made

    def do(self) -> None:
        """Score, unless it is done."""
        self.scores()
