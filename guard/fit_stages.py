"""Which stages `guard fit` fits, and what they say of clean rows.

A detector scores each row of the calibration part; what monitors do is in `guard.fit_monitors`.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from guard import equipping, fit_batching, fit_monitors, registry
from guard.fit_clean import FitError
from guard.fit_motion import by_camera, next_frames, other_cameras
from guard.fit_subject import Formats, Positions, Subject
from guard.profile import stage_key
from guard.settings import build_stage
from guard.sketching import Sketcher
from guard.types import AnswerDetector, Array, Floats, KeyedOutput, Kind, ViewDetector, VotingPurifier, WindowMonitor

Progress = Callable[[str, int, int], None]  # what is done, rows so far, of how many

SCORING: tuple[Kind, ...] = ("detector", "monitor")
_CHUNK = 128
SECRET = b"guard fit: any secret will do".ljust(32)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A stage to fit. weight: a detector's share of the budget, relative to the others'."""

    kind: Kind
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0

    @property
    def key(self) -> str:
        """Its name in the profile."""
        return stage_key(self.kind, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """A stage that suits the model.

    impl:    as its options make it. working: equipped with what was learned.
    arrays:  what it learned.
    asked:   whether somebody asked for it.
    """

    wanted: Wanted
    impl: Any
    working: Any = None
    arrays: Mapping[str, Array] = field(default_factory=dict)
    asked: bool = True

    @property
    def scores(self) -> bool:
        """Whether it is calibrated."""
        return self.wanted.kind in SCORING


def choose(
    wanted: Sequence[Wanted] | None, subject: Subject, available: Collection[str], *, learning: bool = False
) -> tuple[tuple[Chosen, ...], dict[str, str]]:
    """The stages to fit, and why others are left out; None: every stage that suits. Raises FitError, ConfigError.

    available: networks that stages may have although nobody asked for these stages.
    learning:  whether stages that nobody asked for may learn.
    """
    registry.load()
    every = [Wanted(kind, name) for kind in SCORING for name in registry.names(kind)]
    chosen, skipped = [], {}
    for stage in every if wanted is None else wanted:
        impl = build_stage(stage.kind, stage.name, stage.options)
        if stage.kind not in SCORING and not is_fitted(impl):
            raise FitError(f"{stage.key}: a stage such as this needs no fitting")
        why = _unsuited(impl, subject, available if wanted is None else equipping.NETWORKS)
        if why is None and wanted is None:
            why = _not_by_itself(impl, learning=learning)
        if why is None:
            chosen.append(Chosen(stage, impl, asked=wanted is not None))
        elif wanted is None:
            skipped[stage.key] = why
        else:
            raise FitError(f"{stage.key} cannot serve this model: {why}")
    keys = [stage.wanted.key for stage in chosen]
    if len(set(keys)) != len(keys):
        raise FitError(f"a stage is asked for twice: {', '.join(keys)}")
    return tuple(chosen), skipped


def monitors_need(chosen: Sequence[Chosen], network: str) -> bool:
    """Whether a monitor works with this network."""
    return any(stage.wanted.kind == "monitor" and network in equipping.needs_of(stage.impl) for stage in chosen)


def is_fitted(impl: Any) -> bool:
    """Whether a stage that does not score still has something to learn, or networks to get."""
    return equipping.learns(impl) or bool(equipping.needs_of(impl))


def _unsuited(impl: Any, subject: Subject, available: Collection[str]) -> str | None:
    """Why a stage cannot serve this model, as far as its options tell."""
    if getattr(impl, "needs_images", False) and not subject.space.is_image:
        return "it works on images, and the model takes vectors"
    lacking = [name for name in equipping.needs_of(impl) if name not in available]
    if lacking:
        return f"it needs the network {lacking[0]!r}: --train {lacking[0]}, or --networks with one that is there"
    return None


def _not_by_itself(impl: Any, *, learning: bool) -> str | None:
    """Why a stage is only fitted where somebody asks for it."""
    if getattr(impl, "opt_in", False):
        return "it is dear, has a choice to make, or is easily wrong: ask for it by --stage or --config"
    if equipping.learns(impl) and not learning:
        return "it learns from clean inputs: --learn, --train, or ask for it by --stage or --config"
    return None


def trial(working: Any, subject: Subject, row: Positions) -> None:
    """Raises ValueError where an equipped stage cannot serve this model. `row`: a clean row to try it on."""
    protects = hasattr(working, "protect") or isinstance(working, KeyedOutput)
    compares = protects or isinstance(working, ViewDetector | AnswerDetector | VotingPurifier)
    if compares and subject.meaning == "labels":
        raise ValueError("it compares probabilities, and the model answers with labels only")
    why = fit_batching.refuse(working, subject.batching)
    if hasattr(working, "judge") or hasattr(working, "judge_answers") or hasattr(working, "judge_window"):
        return
    if why is None and subject.whole_numbers:
        why = _refuses_whole_numbers(working)
    if why is not None:
        raise ValueError(why)
    unit = subject.space.to_unit(subject.seen(row)[0])
    if isinstance(working, ViewDetector):
        working.views(unit)
    elif isinstance(working, VotingPurifier):
        working.copies(unit)
    elif isinstance(working, AnswerDetector):
        working.score_answer(unit, subject.probabilities(row))
    elif hasattr(working, "purify"):
        working.purify(unit)
    elif protects:
        _protect(working, unit, subject.probabilities(row))
    else:
        working.score(unit)


def _protect(working: Any, unit: Array, probs: Array) -> None:
    every = np.ones(len(probs), np.bool_)
    if isinstance(working, KeyedOutput):
        working.protect_keyed(unit, probs, every)
    else:
        working.protect(probs, every)


def _refuses_whole_numbers(working: Any) -> str | None:
    if isinstance(working, ViewDetector | VotingPurifier) or hasattr(working, "purify"):
        return "it changes values a little, and the model takes whole numbers, such as token ids"
    return None


def with_room(chosen: Sequence[Chosen], count: int) -> tuple[tuple[Chosen, ...], dict[str, str]]:
    """Without monitors whose windows have more than half of so many rows; and why. Raises FitError if one was asked."""
    kept, skipped = [], {}
    for stage in chosen:
        window = stage.working.window if isinstance(stage.working, WindowMonitor) else 0
        if 2 * window <= count:
            kept.append(stage)
            continue
        why = f"it judges {window} rows together, which takes {2 * window} clean inputs for calibration, not {count}"
        if stage.asked:
            raise FitError(f"{stage.wanted.key}: {why}")
        skipped[stage.wanted.key] = why
    return tuple(kept), skipped


def check_count(chosen: Sequence[Chosen], count: int, rate: float) -> None:
    """Raises FitError where `count` rows cannot show p-values small enough for detectors to fire at this rate.

    A detector fires at its share of the budget or above it; in the worst case each has rows to itself at the end.
    """
    weights = [stage.wanted.weight for stage in chosen if stage.wanted.kind == "detector"]
    if not weights:
        return
    parts = sum(weights) / min(weights) + (len(weights) > 1)
    if rate * (count + 1) < parts:
        raise FitError(
            f"{count} distinct clean inputs for calibration are too few for a false-positive rate of {rate:g} "
            f"shared by {len(weights)} detector(s): give at least {math.ceil(parts / rate - 1e-9) - 1}, "
            f"or a rate of at least {parts / (count + 1):.2g}, or fewer stages (--stage)"
        )


def chunks(rows: Positions) -> Iterator[Positions]:
    """The rows, some at a time."""
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


class _Watched:
    """What monitors are calibrated with: clean rows, next frames of films of them, and how other cameras have them."""

    def __init__(self, subject: Subject, sketcher: Sketcher, classes: int, seed: int, *, windows: bool) -> None:
        """windows: whether any monitor judges windows."""
        self._subject, self._sketcher, self._classes = subject, sketcher, classes
        self._rng = np.random.default_rng(seed)
        self._clean, self._frames = fit_monitors.Rows(), fit_monitors.Rows()
        self._others = [Sketcher(bytes([i])) for i in range(fit_monitors.DRAWS - 1)] if windows else []
        found = other_cameras(np.random.default_rng([seed, 1]), fit_monitors.CAMERAS if windows else 0)
        self._cameras = [(camera, fit_monitors.Rows()) for camera in found]

    def add(self, some: Positions, x: Array, formats: Formats, unit: Floats) -> None:
        """Some more rows, as they came and in unit form. Raises AskError."""
        few = len(self._clean.sketches) < fit_monitors.CAMERA_ROWS
        said = self._subject.said(some, self._classes)
        self._clean.add(self._sketcher(unit), said, [one.positions(unit) for one in self._others])
        changed = [(next_frames(unit, self._rng), self._frames)]
        if few:
            changed += [(by_camera(unit, camera), rows) for camera, rows in self._cameras]
        for images, rows in changed:
            if images is not None:
                sent = self._subject.space.from_unit(images, x)
                answers = self._subject.said(some, self._classes, sent, formats)
                rows.add(self._sketcher(self._subject.space.to_unit(sent)), answers)

    def scores(self, monitors: Mapping[str, Any], seed: int) -> dict[str, Array]:
        """By key. Raises ValueError."""
        return fit_monitors.scores(monitors, self._clean, self._frames, seed, [rows for _, rows in self._cameras])


def calibrate(
    subject: Subject,
    chosen: Sequence[Chosen],
    rows: Positions,
    progress: Progress,
    *,
    sketcher: Sketcher,
    classes: int,
    seed: int = 0,
) -> dict[str, Array]:
    """Each stage's scores of clean rows, by key and in the rows' order. Raises FitError, AskError."""
    scoring = [stage for stage in chosen if stage.scores]
    monitors = {stage.wanted.key: stage.working for stage in scoring if stage.wanted.kind == "monitor"}
    scores: dict[str, list[Array]] = {stage.wanted.key: [] for stage in scoring if stage.wanted.kind == "detector"}
    windows = any(isinstance(monitor, WindowMonitor) for monitor in monitors.values())
    watched = _Watched(subject, sketcher, classes, seed, windows=windows)
    reading = any(isinstance(stage.working, ViewDetector | AnswerDetector) for stage in scoring)
    done = 0
    progress("calibrating", done, len(rows))
    for some in chunks(rows):
        x, formats = subject.seen(some)
        unit = subject.space.to_unit(x)
        probs = subject.probabilities(some) if reading else None
        if monitors:
            watched.add(some, x, formats, unit)
        for stage in scoring:
            if stage.wanted.kind == "monitor":
                continue
            if probs is not None and isinstance(stage.working, ViewDetector):
                sends = (subject.space.from_unit(np.clip(view, 0, 1), x) for view in stage.working.views(unit))
                views = tuple(subject.probabilities(some, view, formats) for view in sends)
                scores[stage.wanted.key].append(stage.working.score_views(probs, views))
            elif probs is not None and isinstance(stage.working, AnswerDetector):
                scores[stage.wanted.key].append(stage.working.score_answer(unit, probs))
            else:
                scores[stage.wanted.key].append(stage.working.score(unit))
        done += len(some)
        progress("calibrating", done, len(rows))
    found = {key: np.concatenate(parts) for key, parts in scores.items() if parts}
    if not monitors:
        return found
    try:
        return found | watched.scores(monitors, seed)
    except ValueError as error:
        raise FitError(str(error)) from None
