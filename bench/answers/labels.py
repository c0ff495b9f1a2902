"""Labels of protected answers, in every datatype, encoding and meaning; replicas and repeats.

The label of an answer is its largest class, the first of equals, in the datatype that it travels in: what the client
sees. In the halves the bare answer itself often ties; then its label is the first of the classes that tie, and this one
must be alone at the top of what is told. How often casting alone moves the label, Guard or no Guard, is told beside it.

    bulk      every test row, in process: the proxy's engine, its own code that reads the upstream's message and writes
              the caller's (guard.proxy.case); the client's side is read by hand (bench.answers.wire)
    edge      the same where the runner-up was put at the top's value, or one step of the datatype below or above it
    wire      some rows of all of it through two `guard serve` with one secret
    repeats   the same rows again and again, averaged, beside noise that is drawn anew
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adversary.attack import Array
from bench.answers.served import DTYPES, PART, SPACE, Guarded, Meaning, Subject, Way, profile, said, sound, subject, way
from bench.answers.wire import FORMS, MEANINGS, Cell, Form, ask, read, stand, write
from guard.proxy import case

DATA = ("mnist", "cifar10", "photos")
KEEPING = (
    way("label_only"), way("rounding"), way("top_k", k=1), way("top_k", k=3), way("temperature"),
    way("reverse_sigmoid"), way("low_confidence_noise"), way("low_confidence_noise", sigma=0.5, threshold=0.7),
    way("aaa"), way("aaa", period=4.0), way("aaa", form="sine", period=6.0), way("adaptive_misinformation"),
    way("modelguard"), way("modelguard", eps=0.3), way("membership_noise"), way("membership_noise", eps=0.2),
)  # fmt: skip
CHANGING = (
    way("low_confidence_noise", sigma=0.5, threshold=0.7, keep_label=False),
    way("adaptive_misinformation", keep_label=False),
)  # fmt: skip
"""The control: labels that change are seen."""
EDGES = ("equal", "below", "above")
DRAWN = (
    way("low_confidence_noise", sigma=0.5, threshold=0.7), way("adaptive_misinformation"),
    way("membership_noise", eps=0.2),
)  # fmt: skip
SEED = 0
_BOUND = 0.025
_UNSURE = 0.7
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Scale:
    """How much. rows: of each data set, drawn; edge: of each of the three; wire: by data; repeats: of averaged rows."""

    rows: int = 1000
    edge: int = 50
    wire: tuple[tuple[str, int], ...] = (("mnist", 20), ("cifar10", 20), ("photos", 1))
    repeats: int = 1000
    averaged: int = 20
    data: tuple[str, ...] = DATA
    ways: tuple[Way, ...] = KEEPING


def exact(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of Clopper and Pearson 1934."""
    if n == 0:
        return 0.0, 1.0
    low = 0.0 if hits == 0 else _where(lambda p: 1.0 - _at_most(hits - 1, n, p) - _BOUND)
    high = 1.0 if hits == n else _where(lambda p: _BOUND - _at_most(hits, n, p))
    return low, high


def _where(rising: Callable[[float], float]) -> float:
    """Where it passes 0."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0


def _at_most(hits: int, n: int, p: float) -> float:
    """P(X <= hits) of n tries."""
    if p <= 0.0 or p >= 1.0:
        return float(p <= 0.0)
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(hits + 1)]
    return float(sum(math.exp(w + k * math.log(p) + (n - k) * math.log1p(-p)) for k, w in enumerate(ways)))


def count(flags: Array) -> dict[str, Any]:
    """(N,) -> how many, with the exact interval."""
    hits, n = int(flags.sum()), len(flags)
    return {"hits": hits, "n": n, "rate": hits / n if n else None, "interval_95": list(exact(hits, n))}


def measured(scale: Scale | None = None) -> dict[str, Any]:
    """All four parts."""
    scale = Scale() if scale is None else scale
    found: dict[str, Any] = {"seed": SEED, "bulk": {}, "edge": {}, "wire": {}}
    for name in scale.data:
        on = drawn(subject(name), scale.rows)
        logits = on.model.logits(on.x)
        found["bulk"][name] = _bulk(on, logits, scale)
        found["edge"][name] = _edge(on, logits, scale)
        few = dict(scale.wire).get(name, 0)
        if few:
            found["wire"][name] = through(on.part(slice(0, few)), scale.ways)
        if name == "cifar10" and scale.repeats:
            found["repeats"] = [averaged(on, logits, one, scale) for one in DRAWN]
    return found


def drawn(on: Subject, rows: int) -> Subject:
    """So many of its test rows, or all."""
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(on.x))[:rows])
    return replace(on, x=on.x[chosen], y=on.y[chosen])


# --- in process


def heard(y: Array, datatype: str) -> Array:
    """An upstream's answer as a client reads it who is not behind Guard."""
    return read(write(y, Form(datatype, raw=True)))


def labels(y: Array) -> Array:
    """(N, C) -> (N,) the first of the largest."""
    return np.asarray(y.argmax(axis=1))


def tied(y: Array) -> Array:
    """(N, C) -> (N,) whether more than one class is the largest."""
    return np.asarray((y == y.max(axis=1, keepdims=True)).sum(axis=1) > 1)


def _bulk(on: Subject, logits: Array, scale: Scale) -> dict[str, Any]:
    bare = []
    for meaning in MEANINGS:
        for datatype in DTYPES:
            y = heard(said(logits, meaning, datatype), datatype)
            moved = labels(y) != labels(logits)
            bare.append(
                {"meaning": meaning, "datatype": datatype, "tied": count(tied(y)), "moved_by_the_cast": count(moved)}
            )
    unit = SPACE.to_unit(on.x)
    cells = [
        one
        for protection in (*scale.ways, *CHANGING)
        for meaning in MEANINGS
        for datatype in DTYPES
        for one in _cells(on, protection, meaning, datatype, said(logits, meaning, datatype), on.x, unit)
    ]
    return {"rows": len(on.x), "classes": on.classes, "right": count(labels(logits) == on.y), "bare": bare,
            "cells": cells}  # fmt: skip


def _edge(on: Subject, logits: Array, scale: Scale) -> list[dict[str, Any]]:
    few = slice(0, scale.edge)
    found: list[dict[str, Any]] = []
    x = np.concatenate([on.x[few]] * len(EDGES))
    unit = SPACE.to_unit(x)
    for meaning in MEANINGS:
        for datatype in DTYPES:
            y = heard(said(logits[few], meaning, datatype), datatype)
            together = np.concatenate([edged(y, datatype, how) for how in EDGES])
            for protection in scale.ways:
                found += _cells(on, protection, meaning, datatype, together, x, unit)
    return found


def edged(y: Array, datatype: str, how: str) -> Array:
    """(N, C) -> the runner-up at the top's value, or one step of the datatype away from it."""
    out, each = y.copy(), np.arange(len(y))
    top = labels(y)
    out[each, top] = -np.inf
    second = labels(out)
    out[each, top] = y[each, top]
    out[each, second] = stepped(y[each, top], datatype, {"equal": 0, "below": -1, "above": 1}[how])
    return out


def stepped(values: Array, datatype: str, steps: int) -> Array:
    """(N,) -> the neighbours in the datatype, -1 below or 1 above."""
    if steps == 0:
        return values
    towards = values.dtype.type(math.copysign(math.inf, steps))
    if datatype != "BF16":
        return np.asarray(np.nextafter(values, towards))
    bits = values.view(np.uint32) >> 16
    away = (values >= 0) == (steps > 0)  # from 0
    return np.asarray((np.where(away, bits + 1, bits - 1).astype(np.uint32) << 16).view(np.float32))


def _cells(
    on: Subject, protection: Way, meaning: Meaning, datatype: str, y: Array, x: Array, unit: Array
) -> Iterator[dict[str, Any]]:
    guarded = Guarded.of(profile(on, protection, meaning, datatype), protection)
    forms = [form for form in FORMS if form.datatype == datatype]
    flags: dict[Form, list[Array]] = {form: [] for form in forms}
    for at in range(0, len(y), PART):
        rows = slice(at, at + PART)
        part = y[rows]
        bodies = [write(part, form) for form in forms]
        y_told = concluded(guarded, x[rows], unit[rows], bodies[0])
        for form, body in zip(forms, bodies, strict=True):
            told = read(case.protect(body, y_told, guarded.profile))
            flags[form].append(_compared(read(body), told))
    for form in forms:
        changed, ties, acted = np.concatenate(flags[form], axis=1)
        yield {
            "way": str(protection), "meaning": meaning, "form": str(form), "changed": count(changed),
            "tied": count(ties), "acted": count(acted),
        }  # fmt: skip
    sys.stderr.write(f"{on.name}: {protection}, {meaning}, {datatype}: {changed.sum()} of {len(y)} changed\n")


def concluded(guarded: Guarded, x: Array, unit: Array, body: bytes) -> Array | None:
    """What the proxy makes of the upstream's message, by the functions that it calls; None: nothing is changed."""
    plan = case.Plan(guarded.decision(x, unit), b"")
    return sound(case.conclude(guarded.engine, guarded.profile, plan, body, case.Extra())).y


def _compared(plain: Array, told: Array) -> Array:
    """(3, N): the label differs, the top is not alone, anything differs."""
    return np.stack([labels(plain) != labels(told), tied(told), (plain != told).any(axis=1)])


# --- through real gRPC


def through(on: Subject, ways: Sequence[Way], repeats: int = 3) -> dict[str, Any]:
    """Every way, meaning and form; the first replica against the upstream, and against the second one."""
    cells = [Cell(one, meaning, form) for one in ways for meaning in MEANINGS for form in FORMS]
    found = {"cells": len(cells), "rows": len(on.x)}
    flags, equal, alone = [], [], []
    with stand(on, cells) as here:
        one, two = here.proxies
        for name in map(str, range(len(cells))):
            request = ask(on.x, name)
            mine = one(request)
            flags.append(_compared(read(here.plain(on.x, name)), read(mine)))
            equal.append(all(other(request) == mine for other in (one, two) for _ in range(repeats - 1)))
            alone.append(_row_by_row(on, here.plain, two, name))
    changed, ties, acted = np.concatenate(flags, axis=1)
    return {
        **found, "changed": count(changed), "tied": count(ties), "acted": count(acted),
        "replicas_equal": count(np.array(equal)), "rows_alone_equal": count(np.concatenate(alone)),
    }  # fmt: skip


def _row_by_row(
    on: Subject, plain: Callable[[Array, str], bytes], proxy: Callable[[bytes], bytes], name: str, most: int = 5
) -> Array:
    """(N,) whether a row by itself is told the same each time, and keeps its label."""
    rows = [on.x[i : i + 1] for i in range(min(most, len(on.x)))]
    found = []
    for row in rows:
        told = [proxy(ask(row, name)) for _ in range(2)]
        found.append(told[0] == told[1] and labels(read(told[0])) == labels(read(plain(row, name))))
    return np.array(found).ravel()


# --- repeats


def averaged(on: Subject, logits: Array, protection: Way, scale: Scale) -> dict[str, Any]:
    """Unsure rows asked so often. L1 to the model's own answer: of one answer, of the better of mean and median."""
    probs = said(logits, "probabilities")
    rows = np.flatnonzero(probs.max(axis=1) < _UNSURE)[: scale.averaged]
    x, y = on.x[rows], probs[rows]
    made = profile(on, protection, "probabilities")
    kept = Guarded.of(made, protection)
    keyed = np.stack([kept.told(x, y) for _ in range(scale.repeats)]).astype(np.float64)
    anew = np.stack(
        [Guarded.of(made, protection, i.to_bytes(32, "big")).told(x, y) for i in range(scale.repeats)]
    ).astype(np.float64)
    told = {
        "way": str(protection), "rows": len(rows), "repeats": scale.repeats,
        "distinct": max(len({answer.tobytes() for answer in keyed[:, i]}) for i in range(len(rows))),
    }  # fmt: skip
    for name, answers in (("keyed", keyed), ("anew", anew)):
        once = np.abs(answers - y).sum(axis=2)
        guesses = [np.abs(made - y).sum(axis=1) for made in (answers.mean(axis=0), np.median(answers, axis=0))]
        best = min(guesses, key=lambda far: float(far.mean()))
        told[name] = {"once": _mean(once.mean(axis=0)), "averaged": _mean(best)}
    return told


def _mean(values: Array) -> dict[str, float]:
    return {"mean": float(values.mean()), "half_95": float(1.96 * values.std() / math.sqrt(max(1, len(values))))}
