"""Which stages `guard fit` fits, and what they say of clean rows.

A detector scores each row of the calibration part. A monitor's row is matched against the other four fifths of that
part, so that every score is against as many rows. Benign overlap grows with what the store holds: the more clean
inputs, the better.
"""

import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from guard import registry
from guard.fit_clean import FitError
from guard.fit_subject import Positions, Subject
from guard.profile import stage_key
from guard.settings import build_stage
from guard.stores.memory import MemoryStore
from guard.types import Array, Kind, Monitor, Sketch, ViewDetector

T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # what is done, rows so far, of how many

SCORING: tuple[Kind, ...] = ("detector", "monitor")
_CHUNK = 128
_FOLDS = 5
_SECRET = b"guard fit: overlaps do not depend on the secret"


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stage that suits the model."""

    wanted: Wanted
    impl: Any


def choose(
    wanted: Sequence[Wanted] | None, subject: Subject, row: Positions
) -> tuple[tuple[Chosen, ...], dict[str, str]]:
    """The stages to fit, and why others are left out; None: every stage that suits. Raises FitError, ConfigError.

    `row`: one clean row to try them on.
    """
    registry.load()
    every = [Wanted(kind, name) for kind in SCORING for name in registry.names(kind)]
    chosen, skipped = [], {}
    for stage in every if wanted is None else wanted:
        if stage.kind not in SCORING:
            raise FitError(f"{stage.key}: a {stage.kind} needs no fitting")
        impl = build_stage(stage.kind, stage.name, stage.options)
        why = _unsuited(impl, subject, row)
        if why is None:
            chosen.append(Chosen(stage, impl))
        elif wanted is None:
            skipped[stage.key] = why
        else:
            raise FitError(f"{stage.key} cannot serve this model: {why}")
    keys = [stage.wanted.key for stage in chosen]
    if len(set(keys)) != len(keys):
        raise FitError(f"a stage is asked for twice: {', '.join(keys)}")
    return tuple(chosen), skipped


def _unsuited(impl: Any, subject: Subject, row: Positions) -> str | None:
    """Why a stage cannot serve this model."""
    if getattr(impl, "needs_images", False) and not subject.space.is_image:
        return "it works on images, and the model takes vectors"
    if isinstance(impl, ViewDetector) and subject.meaning == "labels":
        return "it compares probabilities, and the model answers with labels only"
    unit = subject.space.to_unit(subject.seen(row)[0])
    try:
        if isinstance(impl, ViewDetector):
            impl.views(unit)
        elif hasattr(impl, "sketch"):
            impl.sketch(unit, _SECRET)
        else:
            impl.score(unit)
    except ValueError as error:
        return str(error)
    return None


def check_count(chosen: Sequence[Chosen], count: int, rate: float) -> None:
    """Raises FitError where a detector's share of the budget is below the least p-value that `count` rows can show."""
    detectors = [stage for stage in chosen if stage.wanted.kind == "detector"]
    if not detectors:
        return
    share = min(stage.wanted.weight for stage in detectors) / sum(stage.wanted.weight for stage in detectors)
    if share * rate * (count + 1) < 1:
        raise FitError(
            f"{count} distinct clean inputs for calibration are too few for a false-positive rate of {rate:g} "
            f"shared by {len(detectors)} detector(s): give at least {math.ceil(1 / (share * rate)) - 1}, "
            f"or a rate of at least {1 / (share * (count + 1)):.2g}"
        )


def chunks(rows: Positions) -> Iterator[Positions]:
    """The rows, some at a time."""
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]


def calibrate(subject: Subject, chosen: Sequence[Chosen], rows: Positions, progress: Progress) -> dict[str, Array]:
    """Each stage's scores of clean rows, by key. Raises FitError, AskError."""
    scores: dict[str, list[Array]] = {stage.wanted.key: [] for stage in chosen}
    sketches: dict[str, list[Sketch]] = {stage.wanted.key: [] for stage in chosen if stage.wanted.kind == "monitor"}
    done = 0
    progress("calibrating", done, len(rows))
    for some in chunks(rows):
        x, formats = subject.seen(some)
        unit = subject.space.to_unit(x)
        probs = subject.probabilities(some) if any(isinstance(stage.impl, ViewDetector) for stage in chosen) else None
        for stage in chosen:
            if stage.wanted.key in sketches:
                sketches[stage.wanted.key] += stage.impl.sketch(unit, _SECRET)
            elif probs is not None and isinstance(stage.impl, ViewDetector):
                sent = (subject.space.from_unit(np.clip(view, 0, 1), x) for view in stage.impl.views(unit))
                views = tuple(subject.probabilities(some, view, formats) for view in sent)
                scores[stage.wanted.key].append(stage.impl.score_views(probs, views))
            else:
                scores[stage.wanted.key].append(stage.impl.score(unit))
        done += len(some)
        progress("calibrating", done, len(rows))
    found = {key: np.concatenate(parts) for key, parts in scores.items() if parts}
    found |= {s.wanted.key: _overlaps(s.impl, sketches[s.wanted.key]) for s in chosen if s.wanted.key in sketches}
    return found


def _overlaps(monitor: Monitor, sketches: Sequence[Sketch]) -> Array:
    """Each row judged by its matches among the rows of the other folds."""
    scores = np.zeros(len(sketches))
    for fold in range(min(_FOLDS, len(sketches))):
        own = range(fold, len(sketches), _FOLDS)
        others = [sketch for i, sketch in enumerate(sketches) if i % _FOLDS != fold]
        store = MemoryStore(max_entries=max(1, len(others)))
        for start in range(0, len(others), _CHUNK):
            exchange(store, {"": tuple(others[start : start + _CHUNK])})
        rows = tuple(sketches[i] for i in own)
        history = exchange(store, {"": rows}, remember=False)[""]
        scores[own.start :: _FOLDS] = monitor.judge(rows, history)
    return scores


def exchange(store: MemoryStore, sketches: Mapping[str, tuple[Sketch, ...]], *, remember: bool = True) -> Any:
    """One exchange with a store that never waits, so no event loop is needed."""
    return at_once(store.exchange("fit", "fit", sketches, 0.0, remember=remember))


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the coroutine waits for something")
