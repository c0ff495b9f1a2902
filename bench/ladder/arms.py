"""What stands before the victim: nothing, the default policy, or the whole ladder of responses.

    bare      the victim alone
    deny      the default policy: hostile callers are refused, nothing else is done
    labels    a ladder that keeps every label: two decimals at watch, coarse answers at suspect, labels alone and
              a throttle for hostile callers
    mislead   the recommended ladder: the same, but what hostile callers are told is wrong: each answer's probabilities
              stand on other classes, which a secret chooses, and a coarse answer of the wrong class is what leaves

All monitors that need not be asked for are on, in all but the first. Nothing here was chosen by looking at a copy: that
misinformation is for every answer to a hostile caller (`delta: 1`), and stands before the coarse answers, which hide
how sure it was, follows from what the two do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench.monitors import guarded
from bench.monitors.client import Told
from bench.monitors.ground import Ground, ground, home, softmax
from bench.monitors.guarded import DEFAULT, WARM, Clock
from guard import engine as engines
from guard.engine import Engine
from guard.fit_clean import Clean
from guard.fit_monitors import at_once
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.profile import load_profile, save_profile, stage_key
from guard.proxy.ask import ServedModel
from guard.settings import Embedded
from guard.settings import Model as Settings
from guard.stores.memory import MemoryStore
from guard.types import Action, Answer, Bucket, Query

STEP_S = 0.1
"""Between two queries: ten rows a second."""
_COHORTS = ("global",)
_SECRET = b"a bench needs none that is secret"
_ROUNDED = {"stage": "rounding", "options": {"decimals": 2}}
_COARSE = {"stage": "modelguard", "degree": 2}
_STEPS: Mapping[str, Any] = {
    "on_watch": "degrade", "on_suspect": ["degrade", "delay"], "on_hostile": ["degrade", "throttle"],
}  # fmt: skip
ARMS: Mapping[str, Mapping[str, Any]] = {
    "deny": {},
    "labels": {"outputs": [_ROUNDED, _COARSE, {"stage": "label_only", "degree": 3}], "policy": _STEPS},
    "mislead": {
        "outputs": [
            {"stage": "adaptive_misinformation", "options": {"delta": 1.0, "keep_label": False}, "degree": 3},
            _COARSE,
            _ROUNDED,
        ],
        "policy": _STEPS,
    },
}
BARE = "bare"
FULL, DEGRADED, THROTTLED, REFUSED = range(4)
OUTCOMES = ("answered in full", "degraded", "throttled", "refused")
_LEARNED = "modelguard"
_CLEAN = 500  # rows to calibrate with: an output protection has no scores


def where(data: str) -> Path:
    """Of the profile that holds what the coarse answers are."""
    on = ground(data)
    key = shelf.key(
        victim=on.sha256, code=serving.code_digest("guard.outputs"), learn=shelf.digest(on.learn.images), clean=_CLEAN
    )
    return home() / "profiles" / f"{data}-ladder-{key}"


def make(data: str) -> None:
    """Fit what is not fitted yet: the monitors' profile, and the coarse answers by `guard fit`'s own function."""
    guarded.make(data, DEFAULT)
    if (where(data) / "profile.json").is_file():
        return
    on = ground(data)
    options = Options(
        stages=(Wanted("output", _LEARNED),), learn=Clean(arrays={"image": on.unit(on.learn.images)}), held_out=0.0,
        maximum=_CLEAN,
    )  # fmt: skip
    with ServedModel.embedded(Embedded(file=on.onnx, max_batch_rows=256), data, batch=128) as model:
        made = fit(model, Clean(arrays={"image": on.unit(on.clean.images)}), options)
    save_profile(made.profile, where(data))


def settings(data: str, arm: str) -> dict[str, Any]:
    """Of the model, as they stand in a settings file."""
    return {**guarded.settings_of(data, DEFAULT), **ARMS[arm]}


@lru_cache(maxsize=4)
def engine(data: str, arm: str) -> Engine:
    """The engine of an arm; it keeps nothing, so runs share it."""
    make(data)
    whole, key = guarded.profile(data, DEFAULT), stage_key("output", _LEARNED)
    own = replace(whole, stages={**whole.stages, key: load_profile(where(data)).stages[key]})
    tree = {**settings(data, arm), "profile": str(where(data)), "embedded": {"file": "model.onnx"}}
    return Engine(Settings.model_validate(tree), own, _SECRET)


def print_of(data: str, arm: str) -> dict[str, Any]:
    """What decides a run behind an arm, beside the attack."""
    if arm == BARE:
        return {"victim": ground(data).sha256}
    own = [sha256(Path(file or "").read_bytes()) for file in (__file__, engines.__file__)]
    outputs = serving.code_digest("guard.outputs")
    return {**guarded.print_of(data, DEFAULT), "arm": settings(data, arm), "code": [own, guarded.code(), outputs]}


@dataclass(frozen=True, slots=True, eq=False)
class Got:
    """What became of some rows. p: (N, C), not a number where nothing came; outcome, level: (N,)."""

    p: Array
    outcome: Array
    level: Array


@dataclass(slots=True)
class Laddered:
    """A guarded victim, asked row by row as the proxy does it, throttle included; time passes a step a row.

    accounts: over how many callers one who asks spreads, in turn.
    patient:  whether he waits for his turn where he is throttled, and asks again; then no faster than that.
    step_s:   between rows. outcomes: of all rows so far.
    """

    on: Ground
    engine: Engine
    store: MemoryStore
    clock: Clock
    accounts: int = 1
    patient: bool = False
    step_s: float = STEP_S
    sent: int = 0
    queries: int = 0
    parts: list[Got] = field(default_factory=list)

    def answer(self, x: Array, caller: str) -> Told:
        """(N, ...) one query a row, in order: the face of `bench.monitors.client.Service`."""
        got = self.ask(x, caller)
        return Told(got.p, got.level, got.outcome >= THROTTLED, np.zeros(len(x), bool))

    def ask(self, x: Array, caller: str) -> Got:
        """(N, ...) one query a row, in order."""
        logits = self.on.model.logits(x)
        p = np.full(logits.shape, np.nan)
        outcome, level = np.zeros(len(x), np.int64), np.zeros(len(x), np.int64)
        for i in range(len(x)):
            who, self.sent = f"{caller}-{self.sent % self.accounts}", self.sent + 1
            y, outcome[i], level[i] = self.row(x[i : i + 1], logits[i : i + 1], who)
            if y is not None:
                p[i] = softmax(y)[0]
        got = Got(p, outcome, level)
        self.parts.append(got)
        return got

    @property
    def all(self) -> Got:
        """Everything so far."""
        return Got(*(np.concatenate([getattr(part, name) for part in self.parts]) for name in Got.__slots__))

    def row(self, x: Array, logits: Array, caller: str) -> tuple[Array | None, int, int]:
        """One row -> what is told, what became of it, and the caller's level."""
        now, scope = self.clock.tick(self.step_s), self.engine.settings.name
        self.queries += 1
        query = self.engine.admit(Query(x, caller, scope, str(self.queries), now=now))
        sketches = self.engine.sketch(query)
        history = at_once(self.store.exchange(scope, caller, _COHORTS, sketches, now))
        decision = self.engine.decide(query, history, sketches)
        errors = [finding.error for finding in decision.findings if finding.error is not None]
        if not decision.update.empty:
            at_once(self.store.credit(scope, caller, _COHORTS, decision.update, now))
        level = int(decision.level)
        if decision.action is Action.DENY:
            return None, REFUSED, level
        if Action.THROTTLE in decision.responses and not self._spared(caller, now):
            return None, THROTTLED, level
        conclusion = self.engine.conclude(decision, Answer(logits))
        errors += [finding.error for finding in conclusion.findings if finding.error is not None]
        if errors:
            raise RuntimeError(f"{caller}: {errors[0]}")
        if not conclusion.update.empty:
            at_once(self.store.credit(scope, caller, _COHORTS, conclusion.update, now))
        if conclusion.action is Action.DENY:
            return None, REFUSED, level
        return (logits, FULL, level) if conclusion.y is None else (conclusion.y, DEGRADED, level)

    def _spared(self, caller: str, now: float) -> bool:
        """Whether a throttled caller has something left, or waits until he has."""
        policy = self.engine.settings.policy
        bucket = Bucket("throttle", policy.throttle_rows_per_s, policy.throttle_burst_rows, 1.0)
        (wait_s,) = at_once(self.store.take(self.engine.settings.name, caller, (bucket,), now))
        if wait_s > 0.0 and self.patient:
            self.step_s = max(self.step_s, 1.0 / policy.throttle_rows_per_s / self.accounts)
            then = self.clock.tick(wait_s)
            (wait_s,) = at_once(self.store.take(self.engine.settings.name, caller, (bucket,), then))
        return wait_s <= 0.0


def laddered(
    data: str, seed: int, arm: str, *, accounts: int = 1, patient: bool = False, warm: int = WARM
) -> Laddered:  # fmt: skip
    """With the history of so many benign rows that every guarded run of `bench.monitors` begins with."""
    made = guarded.guarded(data, seed, DEFAULT, warm)
    return Laddered(made.on, engine(data, arm), made.store, made.clock, accounts, patient)
