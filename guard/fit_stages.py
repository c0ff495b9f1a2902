"""Which stages `guard fit` fits, and what they say of clean rows.

A detector scores each row of the calibration part. A monitor's row is matched against the other four fifths of that
part, so that every score is against as many rows. Benign overlap grows with what the store holds: the more clean
inputs, the better.
"""

import math
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from guard import equipping, fit_batching, registry
from guard.fit_clean import FitError
from guard.fit_subject import Positions, Subject
from guard.profile import stage_key
from guard.settings import build_stage
from guard.stores.memory import MemoryStore
from guard.types import AnswerDetector, Array, Kind, Monitor, Sketch, ViewDetector, VotingPurifier

T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # what is done, rows so far, of how many

SCORING: tuple[Kind, ...] = ("detector", "monitor")
FITTED: tuple[Kind, ...] = ("detector", "monitor", "purifier")
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
        if stage.kind not in FITTED or (stage.kind == "purifier" and not is_fitted(impl)):
            raise FitError(f"{stage.key}: a {stage.kind} such as this needs no fitting")
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
        return "it asks the model for many further rows, or has a choice to make: ask for it by --stage or --config"
    if equipping.learns(impl) and not learning:
        return "it learns from clean inputs: --learn, --train, or ask for it by --stage or --config"
    return None


def trial(working: Any, subject: Subject, row: Positions) -> None:
    """Raises ValueError where an equipped stage cannot serve this model. `row`: a clean row to try it on."""
    compares = isinstance(working, ViewDetector | AnswerDetector | VotingPurifier)
    if compares and subject.meaning == "labels":
        raise ValueError("it compares probabilities, and the model answers with labels only")
    why = fit_batching.refuse(working, subject.batching)
    if why is None and subject.whole_numbers and not hasattr(working, "sketch"):
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
    elif hasattr(working, "sketch"):
        working.sketch(unit, _SECRET)
    elif hasattr(working, "purify"):
        working.purify(unit)
    else:
        working.score(unit)


def _refuses_whole_numbers(working: Any) -> str | None:
    if isinstance(working, ViewDetector | VotingPurifier) or hasattr(working, "purify"):
        return "it changes values a little, and the model takes whole numbers, such as token ids"
    return None


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


def calibrate(subject: Subject, chosen: Sequence[Chosen], rows: Positions, progress: Progress) -> dict[str, Array]:
    """Each stage's scores of clean rows, by key and in the rows' order. Raises FitError, AskError."""
    scoring = [stage for stage in chosen if stage.scores]
    scores: dict[str, list[Array]] = {stage.wanted.key: [] for stage in scoring}
    sketches: dict[str, list[Sketch]] = {stage.wanted.key: [] for stage in scoring if stage.wanted.kind == "monitor"}
    reading = any(isinstance(stage.working, ViewDetector | AnswerDetector) for stage in scoring)
    done = 0
    progress("calibrating", done, len(rows))
    for some in chunks(rows):
        x, formats = subject.seen(some)
        unit = subject.space.to_unit(x)
        probs = subject.probabilities(some) if reading else None
        for stage in scoring:
            if stage.wanted.key in sketches:
                sketches[stage.wanted.key] += stage.working.sketch(unit, _SECRET)
            elif probs is not None and isinstance(stage.working, ViewDetector):
                sent = (subject.space.from_unit(np.clip(view, 0, 1), x) for view in stage.working.views(unit))
                views = tuple(subject.probabilities(some, view, formats) for view in sent)
                scores[stage.wanted.key].append(stage.working.score_views(probs, views))
            elif probs is not None and isinstance(stage.working, AnswerDetector):
                scores[stage.wanted.key].append(stage.working.score_answer(unit, probs))
            else:
                scores[stage.wanted.key].append(stage.working.score(unit))
        done += len(some)
        progress("calibrating", done, len(rows))
    found = {key: np.concatenate(parts) for key, parts in scores.items() if parts}
    found |= {s.wanted.key: _overlaps(s.working, sketches[s.wanted.key]) for s in scoring if s.wanted.key in sketches}
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
