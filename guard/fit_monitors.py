"""What monitors say of clean rows.

A monitor of rows judges each as the store would have it: against the other four fifths of the rows, whose answers are
known, for a caller who has sent some of these before. Benign near-repeats grow with what the store holds: the more
clean inputs, the better. Images are judged as the next frame of a film, too (`guard.fit_motion`).

A monitor of windows judges windows that are drawn from the rows. Positions depend on a secret, and whoever serves has
one of his own, which may stretch what a class differs by: so a few other secrets are tried. A caller has a camera of
his own, or a scanner, and all his images are a little other than the clean ones in the same way: so windows of images
are judged as a few cameras would have them. The secret, or the camera, counts by which windows look worst.

Of all of that the scores of the predicted class count that looks worst, too: a caller who asks about cats alone is no
attacker. Rows and frames are told apart there, unless they look alike: who sends no film is not to be held against
the ease of films.
"""

import math
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from guard.calibration import Calibration
from guard.evidence import log_e_value
from guard.linking import links
from guard.stores.memory import MemoryStore
from guard.types import (
    AnswerMonitor,
    Array,
    Floats,
    History,
    Kept,
    Monitor,
    Past,
    Recent,
    Sketch,
    Sketches,
    Update,
    WindowMonitor,
)

T = TypeVar("T")

WINDOWS = 2000
_FOLDS = 5
DRAWS = 8
"""Secrets whose positions windows are judged by."""
CAMERAS, CAMERA_ROWS = 4, 3000
"""By how many cameras, and how many rows each."""
_CHUNK = 128
_RECENT = 64
_ENOUGH = 500
_SURE = 2.0  # standard errors
_SCOUTED, _FINALISTS, _TRIED = 40, 4, 200  # windows of each secret and class, how many of these go on, windows of those
_SCOPE = _CALLER = "fit"


@dataclass(slots=True)
class Rows:
    """Sketched rows with the model's answers to them, in order. drawn: their positions by other secrets."""

    sketches: list[Sketch] = field(default_factory=list)
    answers: list[Floats] = field(default_factory=list)
    drawn: list[list[Floats]] = field(default_factory=list)

    def add(self, sketches: Sketches, probs: Floats, drawn: Sequence[Floats] = ()) -> None:
        """probs: (N, C), rows that sum to 1; drawn: (N, D) a secret."""
        self.sketches += sketches
        self.answers.append(probs)
        self.drawn.append(list(drawn))

    @property
    def others(self) -> list[Floats]:
        """(N, D) of all rows, a secret."""
        return [np.concatenate(parts) for parts in zip(*self.drawn, strict=True)]

    @property
    def probs(self) -> Floats:
        """(N, C) of all."""
        return np.concatenate(self.answers)

    @property
    def recent(self) -> Recent:
        """All, as one caller's."""
        return recent_of(kept_of(self.sketches, self.probs, range(len(self.sketches))))


def scores(
    monitors: Mapping[str, Any], clean: Rows, frames: Rows, seed: int, cameras: Sequence[Rows] = ()
) -> dict[str, Array]:
    """By key, what monitors of rows say of the clean ones and of frames, or those of windows of WINDOWS windows.

    frames:  of each clean row the next one; empty for what is no image.
    cameras: clean rows as other cameras have them.
    """
    rows = {key: one for key, one in monitors.items() if isinstance(one, Monitor | AnswerMonitor)}
    found: dict[str, Array] = _of_rows(rows, clean, frames, seed) if rows else {}
    if len(rows) == len(monitors):
        return found
    recent = clean.recent
    draws = (recent, *(replace(recent, positions=positions) for positions in clean.others))
    elsewhere = tuple(camera.recent for camera in cameras if camera.sketches)
    for key, one in monitors.items():
        if isinstance(one, WindowMonitor):
            found[key] = _of_windows(one, draws, seed, elsewhere)
    return found


def others_of(count: int) -> int:
    """With how many others each of so many clean rows is compared."""
    return count - -(-count // _FOLDS)


def _of_rows(monitors: Mapping[str, Any], clean: Rows, frames: Rows, seed: int) -> dict[str, Array]:
    """Every clean row against those of other folds; as many frames against rows among which is what they follow."""
    said: dict[str, list[Array]] = {key: [] for key in monitors}
    labels: list[Array] = []
    rng, probs, count = np.random.default_rng(seed), clean.probs, len(clean.sketches)
    for fold in range(min(_FOLDS, count)):
        own = np.arange(fold, count, _FOLDS)
        others = np.setdiff1d(np.arange(count), own)
        store = MemoryStore(max_entries=max(1, len(others)))
        keep(store, clean.sketches, probs, others)
        past = Past(recent=recent_of(kept_of(clean.sketches, probs, rng.permutation(others)[:_RECENT])))
        asked = [([clean.sketches[i] for i in own], probs[own])]
        if frames.sketches:
            after = np.sort(rng.permutation(others)[: len(own)])
            asked.append(([frames.sketches[i] for i in after], frames.probs[after]))
        for kind, (sketches, answers) in enumerate(asked):
            labels.append(np.column_stack([answers.argmax(axis=1), np.full(len(answers), kind)]))
            for at in range(0, len(sketches), _CHUNK):
                some, part = tuple(sketches[at : at + _CHUNK]), answers[at : at + _CHUNK]
                seen = links(some, exchange(store, some, remember=False).matches)
                for key, one in monitors.items():
                    judged = one.judge(seen, past) if isinstance(one, Monitor) else one.judge_answers(seen, past, part)
                    said[key].append(np.asarray(judged, dtype=np.float64))
    every = np.concatenate(labels)
    return {key: _of_worst_group(np.concatenate(parts), every) for key, parts in said.items()}


def _of_worst_group(found: Array, groups: Array) -> Array:
    """The scores of the group that looks worst: a benign caller may ask about one class alone, and send films, or none.

    groups: (N, 2) class and kind, rows or frames. The other kind of the worst one's class is added where that is fair.
    """
    of, kind = groups.T
    every = np.ones(len(found), np.bool_)
    known = [pair for label in np.unique(of) for pair in _kinds(kind, of == label)] or _kinds(kind, every)
    if not known:
        return found
    own, other = known[_worst([found[rows] for rows, _ in known])]
    return found[own | other] if _fair(found[own], found[other]) else found[own]


def _kinds(kind: Array, rows: Array) -> list[tuple[Array, Array]]:
    """(N,) each: which of the rows are of one kind, and which of the other; both as one where neither has enough.

    Enough are as many as p-values need to be as small as evidence wants them; nothing where all are not.
    """
    pairs = [(rows & (kind == one), rows & (kind != one)) for one in (0, 1)]
    large = [pair for pair in pairs if pair[0].sum() >= _ENOUGH]
    return large or [(rows, np.zeros_like(rows))] * bool(rows.sum() >= _ENOUGH)


def _fair(own: Array, other: Array) -> bool:
    """Whether rows like `own` are no evidence in the mean, beyond chance, where both together are the calibration."""
    e_values = _e_values(Calibration.of(np.concatenate([own, other])), own)
    return float(e_values.mean() + _SURE * e_values.std() / math.sqrt(len(e_values))) <= 1.0


def _worst(parts: Sequence[Array]) -> int:
    """Where evidence would grow most if all together were the calibration: the largest mean e-value."""
    return int(np.argmax(_growth(parts)))


def _growth(parts: Sequence[Array]) -> NDArray[np.float64]:
    """Each part's mean e-value, if all together were the calibration."""
    pooled = Calibration.of(np.concatenate(parts))
    return np.array([_e_values(pooled, part).mean() for part in parts])


def _e_values(calibration: Calibration, scores: Array) -> NDArray[np.float64]:
    return np.array([math.exp(log_e_value(p)) for p in calibration.p_values(scores)])


def _of_windows(monitor: WindowMonitor, draws: Sequence[Recent], seed: int, cameras: Sequence[Recent] = ()) -> Array:
    """Scores of windows of all clean rows, or of one predicted class, by the secret or camera by which they look worst.

    draws: the same rows by several secrets. cameras: rows as other cameras have them. Raises ValueError.
    """
    rng, size, rows = np.random.default_rng(seed), monitor.window, draws[0]
    if len(rows) < size:
        raise ValueError(f"a window has {size} rows, and there are {len(rows)} clean inputs")

    def pools(of: Recent) -> list[NDArray[np.int64]]:
        classes = [np.flatnonzero(of.labels == label) for label in np.unique(of.labels)]
        return [np.arange(len(of)), *(pool for pool in classes if len(pool) >= max(2 * size, _ENOUGH // 2))]

    def judged(of: Recent, pool: Array, count: int) -> Array:
        chosen = (rng.choice(pool, size, replace=False) for _ in range(count))
        return np.array([float(monitor.judge_window(of.part(some))) for some in chosen])

    one = rng.choice(len(rows), size, replace=False)
    first, *others = draws
    looks = [of for of in others if monitor.judge_window(of.part(one)) != monitor.judge_window(first.part(one))]
    seen = [of for of in cameras if len(of) >= size]
    every = [(of, pool) for of in (first, *looks, *seen) for pool in pools(of)]
    scouted = [judged(of, pool, _SCOUTED) for of, pool in every]
    best = np.argsort(-_growth(scouted), kind="stable")[:_FINALISTS]
    tried = [np.concatenate([scouted[i], judged(every[i][0], every[i][1], _TRIED - _SCOUTED)]) for i in map(int, best)]
    worst = int(np.argmax(_growth(tried)))
    of, pool = every[int(best[worst])]
    return np.concatenate([tried[worst], judged(of, pool, WINDOWS - _TRIED)])


def kept_of(sketches: Sequence[Sketch], probs: Floats, rows: "Sequence[int] | NDArray[np.int64] | range") -> list[Kept]:
    """What a caller's recent rows keep of these; numbers are places."""
    return [
        Kept(int(i), sketches[i].position, sketches[i].embedding, int(probs[i].argmax()), float(probs[i].max()))
        for i in rows
    ]


def recent_of(kept: Sequence[Kept]) -> Recent:
    """Them as recent rows."""
    if not kept:
        return Past().recent
    return Recent(
        np.stack([row.position for row in kept]),
        np.stack([row.embedding for row in kept]),
        np.array([row.label for row in kept], dtype=np.int64),
        np.array([row.confidence for row in kept]),
        np.array([row.heard for row in kept], dtype=np.bool_),
    )


def keep(store: MemoryStore, sketches: Sequence[Sketch], probs: Floats, rows: NDArray[np.int64]) -> None:
    """Put rows into a store, with their answers, as many callers' queries."""
    for at in range(0, len(rows), _CHUNK):
        part = rows[at : at + _CHUNK]
        history = exchange(store, tuple(sketches[i] for i in part))
        answered = tuple(
            replace(row, number=match.number)
            for row, match in zip(kept_of(sketches, probs, part), history.matches, strict=True)
            if not match.duplicate
        )
        at_once(store.credit(_SCOPE, f"{_CALLER} {at}", (), Update(answered=answered), 0.0))


def exchange(store: MemoryStore, sketches: Sketches, *, remember: bool = True) -> History:
    """One exchange with a store that never waits, so no event loop is needed."""
    return at_once(store.exchange(_SCOPE, _CALLER, (), sketches, 0.0, remember=remember))


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the coroutine waits for something")
