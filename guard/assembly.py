"""The settings' stages, built, equipped and calibrated, each with the threshold at which it fires.

Thresholds of detectors. Where the profile knows which scores are of one row, all detectors together fire on a clean row
at the asked rate (`guard.calibration.joint_threshold`); where it does not, each gets its share of the budget by weight
(Bonferroni). With `escalate_below`, the rule that decides who is escalated is applied to the calibration rows, too, so
that the rate still is the one that was asked for; with `escalate_sample` rows are escalated that no rule names, and the
thresholds are those of all detectors on all rows, which hold for either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Calibration, joint_threshold, weighted_least
from guard.equipping import equip, learns, needs_of
from guard.networks import Networks
from guard.profile import Profile, ProfileError, stage_key
from guard.settings import STAGE_LISTS, Model, build_stage
from guard.types import AnswerDetector, Array, Finding, Kind, Mode, Network, OnError, ViewDetector, When

AMONG = "among"
"""The array of a profile that says with how many others clean rows were compared, of a monitor that searches."""
_UNKNOWN = np.array([math.inf])
_UNCALIBRATED = Calibration.of(np.zeros(1))  # of purifiers and outputs, which do not score


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One stage as the settings want it.

    threshold: at which p-value it fires, where it scores.
    weight:    relative to other detectors.
    joint:     (n,) its scores by row.
    needs:     the networks that it works with.
    among:     with how many others clean rows were compared.
    degree:    from which degree on an output protection acts, where suspicious rows are degraded.
    """

    name: str
    kind: Kind
    impl: Any
    mode: Mode
    on_error: OnError
    when: When = When.SUSPICIOUS
    threshold: float = 0.0
    calibration: Calibration = _UNCALIBRATED
    weight: float = 1.0
    joint: Array | None = None
    needs: tuple[str, ...] = ()
    among: float = math.inf
    degree: int = 1

    @property
    def enforces(self) -> bool:
        """Whether it may act."""
        return self.mode is Mode.ENFORCE

    @property
    def key(self) -> str:
        """Its name in the profile."""
        return stage_key(self.kind, self.name)

    @property
    def sees_input_alone(self) -> bool:
        """Whether it needs no answer of the model."""
        return self.kind == "detector" and not isinstance(self.impl, ViewDetector | AnswerDetector)

    def finding(self, **values: Any) -> Finding:
        """What it says."""
        return Finding(self.name, self.kind, self.mode, threshold=self.threshold, **values)


@dataclass(frozen=True, slots=True, eq=False)
class Cheap:
    """The detectors that look at an input alone, as one: who is to be looked at more closely."""

    weights: NDArray[np.float64]
    clean: Calibration

    def p_values(self, p_values: Array) -> NDArray[np.float64]:
        """(N, K) of those stages -> (N,), their one p-value."""
        return self.clean.p_values(-weighted_least(p_values, self.weights))


def capped(mode: Mode, cap: Mode) -> Mode:
    """The lesser of two modes."""
    order = list(Mode)
    return order[min(order.index(mode), order.index(cap))]


def assemble(
    settings: Model, profile: Profile, secret: bytes, loaded: "Loaded | None" = None
) -> tuple[tuple[Stage, ...], Cheap | None]:
    """The stages that are not off; and, where only some rows are escalated, who decides. Raises ProfileError."""
    loaded = Loaded(profile) if loaded is None else loaded
    stages = [
        _stage(kind, entry, f"{attribute}.{i}", settings, profile, loaded, secret)
        for attribute, kind in STAGE_LISTS
        for i, entry in enumerate(getattr(settings, attribute))
        if capped(entry.mode, settings.mode) is not Mode.OFF or _checked(kind, entry, f"{attribute}.{i}", profile)
    ]
    monitors = [stage for stage in stages if stage.kind == "monitor"]
    detectors, cheap = _share([stage for stage in stages if stage.kind == "detector"], settings)
    rest = [
        replace(stage, threshold=_allowed(stage, monitors, settings)) if stage.kind == "monitor" else stage
        for stage in stages
        if stage.kind != "detector"
    ]
    return (*detectors, *rest), cheap


def credits_component(stage: Stage) -> bool:
    """Whether what a monitor finds speaks against a cluster of queries, rather than against a caller."""
    return getattr(stage.impl, "credits", "caller") == "component"


def searches(impl: Any) -> bool:
    """Whether a stage scores how near the nearest of all rows is, which is nearer where there are more."""
    return bool(getattr(impl, "searches", False))


def compares(stage: Stage) -> bool:
    """Whether a monitor holds an answer against that to a neighbour, so that near-repeats are what it looks at."""
    return bool(getattr(stage.impl, "compares", False))


def measures(stage: Stage) -> bool:
    """Whether a monitor says how far something has gone, and is no test."""
    return hasattr(stage.impl, "level")


def estimates(stage: Stage) -> bool:
    """Whether what it measures is how well a copy of the model would agree with it, 0 to 1."""
    return measures(stage) and getattr(stage.impl, "measures", "") == "agreement"


def _allowed(stage: Stage, monitors: Sequence[Stage], settings: Model) -> float:
    """A monitor's share of the false alarms that are allowed."""
    if credits_component(stage):
        return settings.false_alarms_per_month / sum(map(credits_component, monitors))
    tests = sum(not credits_component(one) and not measures(one) for one in monitors)
    return settings.false_alarms_per_caller_month / max(1, tests)


class Loaded(dict[str, Network]):
    """The profile's networks, each loaded when a stage first asks for it.

    networks: where they are loaded, and files that stages bring; None: nobody else asks there.
    """

    def __init__(self, profile: Profile, networks: Networks | None = None) -> None:
        super().__init__()
        self._profile = profile
        self.networks = Networks() if networks is None else networks

    def __missing__(self, name: str) -> Network:
        self[name] = self.networks.load(self._profile.network(name), name)
        return self[name]


def _built(kind: Kind, entry: Any, path: str, profile: Profile) -> Any:
    impl = build_stage(kind, entry.stage, entry.options, path)
    if getattr(impl, "needs_images", False) and not profile.space.is_image:
        raise ProfileError(f"{kind} {entry.stage!r} works on images only, and the model takes vectors")
    return impl


def _checked(kind: Kind, entry: Any, path: str, profile: Profile) -> bool:
    """A stage that is off must exist and have good options all the same; it is not kept."""
    _built(kind, entry, path, profile)
    return False


def _stage(
    kind: Kind, entry: Any, path: str, settings: Model, profile: Profile, loaded: Loaded, secret: bytes
) -> Stage:
    impl = _built(kind, entry, path, profile)
    scores = kind in {"detector", "monitor"}
    fit = profile.fitted(kind, entry.stage, impl) if scores or learns(impl) else None
    try:
        arrays = {} if fit is None else fit.arrays
        working = equip(impl, stage_key(kind, entry.stage), loaded, arrays, secret, loaded.networks.load)
    except ProfileError:
        raise
    except (KeyError, ValueError) as error:
        raise ProfileError(f"{kind} {entry.stage!r} does not work with this profile: {error}") from None
    return Stage(
        name=entry.stage,
        kind=kind,
        impl=working,
        mode=capped(entry.mode, settings.mode),
        on_error=entry.on_error,
        when=getattr(entry, "when", When.SUSPICIOUS),
        calibration=profile.calibration(kind, entry.stage, impl) if scores else _UNCALIBRATED,
        weight=getattr(entry, "weight", 1.0),
        joint=None if fit is None else fit.joint,
        needs=needs_of(impl),
        degree=getattr(entry, "degree", 1),
        among=math.inf if fit is None else float(fit.arrays.get(AMONG, _UNKNOWN)[0]),
    )


def _share(stages: Sequence[Stage], settings: Model) -> tuple[list[Stage], Cheap | None]:
    """The detectors with their thresholds."""
    weights = np.array([stage.weight for stage in stages], dtype=np.float64)
    seen = [stage for stage in stages if stage.sees_input_alone]
    p_values = _joint_p_values(stages)
    cheap = _cheap(seen, settings, p_values, stages)
    if len(stages) < 2 or p_values is None:  # noqa: PLR2004 - one has the whole budget
        thresholds = settings.false_positive_rate * weights / max(weights.sum(), np.finfo(np.float64).tiny)
    else:
        if cheap is not None and settings.escalate_sample == 0:
            calm = cheap.p_values(p_values[:, _places(stages, seen)]) > (settings.escalate_below or 0.0)
            dear = [i for i, stage in enumerate(stages) if isinstance(stage.impl, ViewDetector)]
            for column in dear:
                p_values[calm, column] = 1.0
        thresholds = joint_threshold(weighted_least(p_values, weights), settings.false_positive_rate) * weights
    made = [replace(stage, threshold=float(t)) for stage, t in zip(stages, thresholds, strict=True)]
    for stage in made:
        _check_resolution(stage)
    return made, cheap


def _places(stages: Sequence[Stage], some: Sequence[Stage]) -> list[int]:
    return [i for i, stage in enumerate(stages) if stage in some]


def _joint_p_values(stages: Sequence[Stage]) -> NDArray[np.float64] | None:
    """(n, K); None where a stage has no joint scores."""
    columns = [stage.calibration.own_p_values(stage.joint) for stage in stages if stage.joint is not None]
    return np.column_stack(columns) if columns and len(columns) == len(stages) else None


def _cheap(
    seen: Sequence[Stage], settings: Model, p_values: NDArray[np.float64] | None, stages: Sequence[Stage]
) -> Cheap | None:
    if settings.escalate_below is None or not any(isinstance(stage.impl, ViewDetector) for stage in stages):
        return None
    if not seen or p_values is None:
        lacking = "scores by row, which only a newly fitted profile has" if seen else "a detector of the input alone"
        raise ProfileError(f"escalate_below needs {lacking}")
    weights = np.array([stage.weight for stage in seen], dtype=np.float64)
    own = weighted_least(p_values[:, _places(stages, seen)], weights)
    return Cheap(weights, Calibration.of(-own))


def _check_resolution(stage: Stage) -> None:
    if stage.threshold < stage.calibration.least:
        enough = f"at least {math.ceil(1 / stage.threshold) - 1}" if stage.threshold > 0 else "more"
        raise ProfileError(
            f"detector {stage.name!r} can never fire: its share of the budget is {stage.threshold:g}, and its "
            f"{stage.calibration.scores.size} clean inputs cannot show less than {stage.calibration.least:g}; fit with "
            f"{enough}, or ask for a higher false_positive_rate"
        )
