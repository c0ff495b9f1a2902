"""CPU time of monitoring one query, and bytes a stored row, at three sizes of image and three sizes of store.

Processor time of this process, one thread; everything takes its turn in each round, the larger store first every other
time, so that what else the machine does falls on all alike. Calibrations and the auxiliary network have the shapes that
`guard fit` gives them and know nothing, which costs the same. A store is full: each new row evicts an old one. Rows are
either unlike all that is stored, or near-repeats of eight stored rows, whose hashes nearly all agree: the worst case of
a look-up. The caller has 256 recent rows. Filling rows have 32 random hashes each.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from adversary.attack import Array
from bench.monitors.guarded import DEFAULT
from bench.stages import inputs
from guard import networks
from guard.assembly import Stage
from guard.calibration import Calibration
from guard.equipping import equip, learner_of
from guard.fit_monitors import at_once
from guard.learning import train
from guard.linking import links
from guard.profile import stage_key
from guard.settings import Model as Settings
from guard.settings import build_stage
from guard.sketching import DIMENSIONS, Sketcher
from guard.stores.memory import MemoryStore
from guard.types import (
    AnswerMonitor,
    Finding,
    History,
    Kept,
    Material,
    Mode,
    Monitor,
    OnError,
    Query,
    Sketch,
    Sketches,
    Update,
    WindowMonitor,
)
from guard.watching import Watching

STORED = (1_000, 100_000, 1_000_000)
SEED = 0
HASHES, EMBEDDED, NEAR = 32, 64, 8
SECRET = b"bench.monitors: costs keep nothing secret"
_SCOPE, _COHORTS, _NOW = "model", ("global",), 1.0e9
_NOISE = 2 / 255
_CHUNK = 500
_USUAL = 100_000  # rows that a store holds at most if nobody says otherwise; of fewer, what any store needs is a share
_LEARN, _CLEAN = 256, 2_000


@dataclass(frozen=True, slots=True)
class How:
    """rounds: of everything. calls: of each thing in a round. warm: queries of the caller before the first round."""

    rounds: int = 15
    calls: int = 16
    warm: int = 260
    stored: tuple[int, ...] = STORED
    sizes: tuple[str, ...] = tuple(inputs.SIZES)


@dataclass(slots=True, eq=False)
class Subject:
    """Of one size: images, how they are sketched, who judges."""

    images: inputs.Images
    plain: Sketcher
    full: Sketcher
    stages: tuple[Stage, ...]
    watching: Watching
    probs: Array
    rng: np.random.Generator

    def fresh(self, n: int) -> list[Array]:
        """n rows, (1, ...) each, that nothing is like."""
        shape = self.images.clean.shape[1:]
        return [self.rng.random((1, *shape), dtype=np.float32) for _ in range(n)]

    def near(self, n: int) -> list[Array]:
        """n rows, (1, ...) each, that are like each other and like those of other calls."""
        one = self.images.clean[:1]
        noise = [self.rng.uniform(-_NOISE, _NOISE, one.shape).astype(np.float32) for _ in range(n)]
        return [np.clip(one + some, 0.0, 1.0) for some in noise]


Times = dict[tuple[str, ...], list[float]]
"""By what was timed: CPU seconds a call, one a round."""


def measured(how: How) -> dict[str, Any]:
    """All of it, as plain data."""
    in_memory = bytes_a_row(min(_USUAL, max(how.stored)))  # first: what is freed later would be used again
    subjects = {name: subject(name) for name in how.sizes}
    stores = {stored: filled(stored) for stored in how.stored}
    times: Times = {}
    for name, one in subjects.items():
        for store in stores.values():
            _warm(one, name, store, how.warm)
    gc.collect()
    for number in range(how.rounds):
        for name, one in subjects.items():
            _alone(times, name, one, how.calls)
            for stored in how.stored if number % 2 else how.stored[::-1]:
                for kind in ("unlike", "near"):
                    _with_store(times, name, one, stored, stores[stored], kind, how.calls)
    return {
        "rounds": how.rounds, "calls": how.calls, "monitors": list(DEFAULT.named),
        "us": {" | ".join(key): _told(taken) for key, taken in times.items()},
        "growth": growth(times, how), "bytes_in_memory": in_memory,
    }  # fmt: skip


def growth(times: Times, how: How) -> dict[str, float]:
    """By size and kind: the exchange, and the whole, with most stored over least, median of the rounds' ratios."""
    found = {}
    for name in how.sizes:
        for kind in ("unlike", "near"):
            for what in ("exchange", "whole"):
                least, most = (np.array(times[name, what, kind, f"{n}"]) for n in (how.stored[0], how.stored[-1]))
                found[f"{name} | {what} | {kind}"] = float(np.median(most / least))
    return found


def _told(taken: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.quantile(np.array(taken) * 1e6, (0.25, 0.5, 0.75))
    return {"median": float(middle), "low": float(low), "high": float(high), "mean": float(np.mean(taken) * 1e6)}


def _timed(times: Times, key: tuple[str, ...], calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The mean of the calls goes into the times; what they returned."""
    began = time.process_time()
    got = [call() for call in calls]
    times.setdefault(key, []).append((time.process_time() - began) / len(calls))
    return got


# --- one round


def _alone(times: Times, name: str, one: Subject, calls: int) -> None:
    rows = one.near(calls)
    _timed(times, (name, "sketch, no embedding"), [partial(one.plain, row) for row in rows])
    _timed(times, (name, "sketch"), [partial(one.full, row) for row in rows])


def _with_store(
    times: Times, name: str, one: Subject, stored: int, store: MemoryStore, kind: str, calls: int
) -> None:  # fmt: skip
    """Piece by piece, then as a whole."""
    at = (kind, f"{stored}")
    make = one.near if kind == "near" else one.fresh
    _beside(one, store)
    sketches = [one.full(row) for row in make(calls)]
    histories = _timed(times, (name, "exchange", *at), [partial(meet, store, name, s) for s in sketches])
    _judges(times, (name, *at), one, sketches, histories)
    rows = make(calls)
    queries = [Query(row, name, _SCOPE, "", row, now=_NOW) for row in rows]
    judged = _timed(
        times, (name, "decide", *at),
        [partial(one.watching.judge, q, s, h) for q, s, h in zip(queries, sketches, histories, strict=True)],
    )  # fmt: skip
    _timed(times, (name, "credit", *at), [partial(_credit, store, name, j.update) for j in judged])
    said = _timed(
        times, (name, "conclude", *at), [partial(one.watching.conclude, j.seen, j.past, one.probs) for j in judged]
    )
    _timed(times, (name, "credit the answer", *at), [partial(_credit, store, name, update) for _, update in said])
    _beside(one, store)
    _timed(times, (name, "whole", *at), [partial(whole, one, name, store, row) for row in rows])


def _judges(
    times: Times, key: tuple[str, ...], one: Subject, sketches: Sequence[Sketches], histories: Sequence[History]
) -> None:  # fmt: skip
    name, at = key[0], key[1:]
    linked = _timed(
        times, (name, "links", *at), [partial(links, s, h.matches) for s, h in zip(sketches, histories, strict=True)]
    )
    for stage in one.stages:
        pairs = list(zip(linked, (history.caller for history in histories), strict=True))
        if isinstance(stage.impl, Monitor):
            calls = [partial(stage.impl.judge, seen, past) for seen, past in pairs]
        elif isinstance(stage.impl, AnswerMonitor):
            calls = [partial(stage.impl.judge_answers, seen, past, one.probs) for seen, past in pairs]
        else:
            size = stage.impl.window
            calls = [partial(stage.impl.judge_window, past.recent.last(size)) for _, past in pairs if len(past.recent)]
        if calls:
            _timed(times, (name, f"monitor {stage.name}{_a_window(stage)}", *at), calls)


def _a_window(stage: Stage) -> str:
    return f", once in {stage.impl.window} rows" if isinstance(stage.impl, WindowMonitor) else ""


def meet(store: MemoryStore, caller: str, sketches: Sketches) -> History:
    """What was known of these rows, which are known from then on."""
    return at_once(store.exchange(_SCOPE, caller, _COHORTS, sketches, _NOW))


def _credit(store: MemoryStore, caller: str, update: Update) -> None:
    at_once(store.credit(_SCOPE, caller, _COHORTS, update, _NOW))


def whole(one: Subject, caller: str, store: MemoryStore, row: Array) -> None:
    """All that monitors add to a query."""
    sketches = one.full(row)
    history = meet(store, caller, sketches)
    judged = one.watching.judge(Query(row, caller, _SCOPE, "", row, now=_NOW), sketches, history)
    _credit(store, caller, judged.update)
    _, update = one.watching.conclude(judged.seen, judged.past, one.probs)
    _credit(store, caller, update)


def _beside(one: Subject, store: MemoryStore) -> None:
    """Eight rows for near-repeats to be near to."""
    for row in one.near(NEAR):
        meet(store, "somebody else", one.full(row))


def _warm(one: Subject, name: str, store: MemoryStore, queries: int) -> None:
    for row in one.fresh(queries):
        whole(one, name, store, row)


# --- what is asked


def subject(name: str) -> Subject:
    """The default monitors, equipped for images of this size. Raises DataUnavailable."""
    images = inputs.SIZES[name](1)
    answers = np.random.default_rng(SEED).dirichlet(np.ones(images.classes), len(images.learn))
    few = Material(images.learn[:_LEARN], answers[:_LEARN], images.classes, seed=SEED)
    usual = import_module("guard.learning.auxiliary").defaults(few.x.shape[1:])
    hasty = replace(usual, foreign=0.0, pace=replace(usual.pace, epochs=1, least=1, most=1, batch=4))
    auxiliary = networks.load(train("auxiliary", few, {}, options=hasty))
    known = Material(
        images.learn, answers, images.classes, {"auxiliary": auxiliary}, SEED,
        positions=lambda unit: (Sketcher(SECRET).positions(unit),),
    )  # fmt: skip
    stages = tuple(_stages(known))
    settings = Settings.model_validate({
        "name": _SCOPE, "mode": "enforce", "profile": "profile", "embedded": {"file": "model.onnx"},
        "monitors": [{"stage": stage.name} for stage in stages],
    })  # fmt: skip
    full = Sketcher(SECRET, auxiliary)
    return Subject(
        images, Sketcher(SECRET), full, stages, Watching(stages, settings, full, score, SECRET), answers[:1],
        np.random.default_rng(SEED),
    )  # fmt: skip


def _stages(material: Material) -> Iterator[Stage]:
    calibration = Calibration.of(np.linspace(0.0, 1.0, _CLEAN))
    for name in DEFAULT.named:
        impl = build_stage("monitor", name, {})
        learn = learner_of(impl)
        arrays = {} if learn is None else learn(material)
        working = equip(impl, stage_key("monitor", name), dict(material.networks), arrays, SECRET)
        yield Stage(name, "monitor", working, Mode.ENFORCE, OnError.ALLOW, threshold=1e-4, calibration=calibration)


def score(stage: Stage, rows: int, judge: Callable[[], Array]) -> Finding:
    """As the engine scores; a monitor that fails would cost less, so it may not. Raises ValueError."""
    scores = np.asarray(judge(), dtype=np.float64)
    if scores.shape != (rows,) or not np.isfinite(scores).all():
        raise ValueError(f"{stage.name} does not score {rows} rows")
    return stage.finding(scores=tuple(scores.tolist()), p_values=stage.calibration.plain(scores))


# --- what is stored


def strangers(rng: np.random.Generator, n: int) -> Sketches:
    """n rows that nothing is like."""
    hashes = rng.integers(0, 2**63, (n, HASHES), dtype=np.uint64)
    positions = rng.standard_normal((n, DIMENSIONS), dtype=np.float32)
    return tuple(Sketch(rng.bytes(16), hashes[i], positions[i]) for i in range(n))


def filled(stored: int) -> MemoryStore:
    """A store that is full of so many rows."""
    store, rng = MemoryStore(max_entries=stored), np.random.default_rng(SEED)
    for at in range(0, stored, _CHUNK):
        meet(store, f"caller {at % 10_000}", strangers(rng, min(_CHUNK, stored - at)))
    return store


def bytes_a_row(rows: int) -> float:
    """What this process grows by for a full store, each row answered, one in twenty a cluster; 200 rows a caller."""
    gc.collect()
    before = _resident()
    store, rng = MemoryStore(max_entries=rows), np.random.default_rng(SEED)
    for at in range(0, rows, 200):
        sketches = strangers(rng, min(200, rows - at))
        numbers = [match.number for match in meet(store, f"{at}", sketches).matches]
        ones = np.ones(EMBEDDED, np.float32)
        kept = tuple(Kept(n, s.position, ones, 1, 0.5) for n, s in zip(numbers, sketches, strict=True))
        _credit(store, f"{at}", Update({"one": (0.5,)}, {}, dict.fromkeys(numbers[::20], (0.5,)), {}, kept))
    gc.collect()
    return (_resident() - before) / store.entries


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as told:  # noqa: PTH123 - no file
        return int(told.read().split()[1]) * 4096
