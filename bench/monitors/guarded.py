"""A guarded victim in this process: engine and memory store, asked row by row as the proxy does it.

sketch -> exchange -> decide -> (refuse, or answer) -> conclude -> credit. The profile is made by `guard fit`'s own
function, with every monitor on, of the `clean` split, and kept; the settings are the defaults, enforced. A store
begins with some benign callers' queries: nobody attacks an empty one. Time passes by a fixed step a query.

A defence may have detectors beside the monitors: those of the documentation's start for images, chosen by
`python -m bench.detection.choosing` on attacks of the `clean` split, at the default budget of false positives. No
purifier waits for suspicious inputs, so by the default policy an input that looks adversarial by itself is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench import profiles
from bench.detection.fitted import CHOSEN, networks_of
from bench.monitors.client import Told
from bench.monitors.ground import Ground, ground, home, softmax
from guard import (
    alerts,
    assembly,
    calibration,
    engine,
    evidence,
    fit_monitors,
    fit_motion,
    fit_stages,
    keyed,
    linking,
    nearness,
    registry,
    sketching,
    threads,
    watching,
)
from guard.engine import Engine
from guard.fit_clean import Clean
from guard.fit_learn import Given
from guard.fit_monitors import at_once
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.profile import Profile, load_profile, save_profile
from guard.proxy.ask import ServedModel
from guard.settings import Embedded
from guard.settings import Model as Settings
from guard.stores.memory import MemoryStore
from guard.techniques import ALERT
from guard.types import Action, Answer, Decision, Mode, Query

STEP_S = 0.05
WARM = 500
"""Benign rows that a store holds before anything is measured."""
_WARM_CALL = 10
_ENTRIES = 200_000
_SECRET = b"a bench needs none that is secret"
_COHORTS = ("global",)
_MODULES = (
    alerts, assembly, calibration, engine, evidence, fit_monitors, fit_motion, fit_stages, keyed, linking, nearness,
    sketching, watching,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Defence:
    """Which monitors watch, and what is done.

    monitors:  names; none: every one that need not be asked for. policy: what differs from the default.
    clean:     rows to fit on at most.
    detectors: names and weights.
    """

    monitors: tuple[str, ...] = ()
    policy: tuple[tuple[str, str], ...] = ()
    clean: int | None = None
    detectors: tuple[tuple[str, float], ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """The monitors."""
        registry.load()
        return self.monitors or tuple(
            name for name in registry.names("monitor") if not getattr(registry.lookup("monitor", name), "opt_in", False)
        )


DEFAULT = Defence()
DETECTORS = tuple(CHOSEN.items())
"""What stands beside the monitors where a single input is judged, too."""
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"purified_answer": {"purifier": "learned_denoiser"}}


@lru_cache(maxsize=1)
def code(*, detectors: bool = False) -> list[str]:
    """Digests of what decides what monitors do, and detectors."""
    packages = ("monitors", "stores", *(("detectors", "purifiers") if detectors else ()))
    return [serving.code_digest(f"guard.{name}") for name in packages] + [
        sha256(Path(module.__file__ or "").read_bytes()) for module in _MODULES
    ]


def place(data: str, defence: Defence) -> Path:
    """Where the profile lies."""
    return home() / "profiles" / f"{data}-{shelf.key(**_fitted(data, defence), clean=defence.clean)}"


def _fitted(data: str, defence: Defence) -> dict[str, Any]:
    """What decides a profile."""
    found: dict[str, Any] = {
        "victim": ground(data).sha256, "network": sha256(_auxiliary(data)),
        "code": code(detectors=bool(defence.detectors)), "monitors": defence.named,
    }  # fmt: skip
    if defence.detectors:
        others = {name: sha256(raw) for name, raw in networks_of(data).items()}
        found |= {"detectors": [list(one) for one in defence.detectors], "networks": others}
    return found


def _auxiliary(data: str) -> bytes:
    return profiles.kept(data, "auxiliary").read_bytes()


def make(data: str, defence: Defence = DEFAULT) -> None:
    """Fit the profile, where it is not there yet."""
    directory, on = place(data, defence), ground(data)
    if (directory / "profile.json").is_file():
        return
    networks = networks_of(data) if defence.detectors else {"auxiliary": _auxiliary(data)}
    options = Options(
        stages=(
            *(Wanted("monitor", name, {}) for name in defence.named),
            *(Wanted("detector", name, _OPTIONS.get(name, {})) for name, _ in defence.detectors),
        ),
        given=Given(networks=networks),
        learn=Clean(arrays={"image": on.unit(on.learn.images)}),
        held_out=0.0,
        maximum=defence.clean,
    )
    with ServedModel.embedded(Embedded(file=on.onnx, max_batch_rows=256), data, batch=128) as model:
        made = fit(model, Clean(arrays={"image": on.unit(on.clean.images)}), options)
    save_profile(made.profile, directory)


@lru_cache(maxsize=2)
def profile(data: str, defence: Defence = DEFAULT) -> Profile:
    """The profile; a process loads each once."""
    make(data, defence)
    return load_profile(place(data, defence))


def settings_of(data: str, defence: Defence) -> dict[str, Any]:
    """Of the model, as they stand in a settings file, without its profile's and its own place."""
    return {
        "name": data,
        "mode": "enforce",
        "monitors": [{"stage": name} for name in defence.named],
        "detectors": [
            {"stage": name, "weight": weight, "options": dict(_OPTIONS.get(name, {}))}
            for name, weight in defence.detectors
        ],
        "policy": dict(defence.policy),
    }


@lru_cache(maxsize=2)
def engine_of(data: str, defence: Defence = DEFAULT) -> Engine:
    """The engine; it keeps nothing, so runs share it. From now on array work is as `guard serve` has it."""
    threads.alone()
    tree = {**settings_of(data, defence), "profile": str(place(data, defence)), "embedded": {"file": "model.onnx"}}
    made = profile(data, defence)
    return Engine(Settings.model_validate(tree), made, _SECRET)


@dataclass(slots=True)
class Clock:
    """Seconds, that pass as queries do."""

    now: float = 1.0e9

    def tick(self, step_s: float = STEP_S) -> float:
        """Later."""
        self.now += step_s
        return self.now


@dataclass(slots=True)
class Guarded:
    """A service (bench.monitors.client) with a history of its own.

    blame: by what a query was refused, how often.
    """

    on: Ground
    engine: Engine
    store: MemoryStore = field(default_factory=lambda: MemoryStore(max_entries=_ENTRIES))
    clock: Clock = field(default_factory=Clock)
    blame: dict[str, int] = field(default_factory=dict)
    queries: int = 0

    def answer(self, x: Array, caller: str) -> Told:
        """(N, ...) one query a row, in order."""
        logits = self.on.model.logits(x)
        p = np.full(logits.shape, np.nan)
        level, refused, own = np.zeros(len(x), np.int64), np.zeros(len(x), bool), np.zeros(len(x), bool)
        for i in range(len(x)):
            y, level[i], own[i] = self.query(x[i : i + 1], logits[i : i + 1], caller)
            refused[i] = y is None
            if y is not None:
                p[i] = softmax(y)[0]
        return Told(p, level, refused, own)

    def query(self, x: Array, logits: Array, caller: str) -> tuple[Array | None, int, bool]:
        """One query of any number of rows -> what the caller is told, None where refused; his level; and whether it
        was refused for what it looks like by itself.
        """
        now, scope = self.clock.tick(), self.engine.settings.name
        self.queries += 1
        query = self.engine.admit(Query(x, caller, scope, str(self.queries), now=now))
        sketches = self.engine.sketch(query)
        history = at_once(self.store.exchange(scope, caller, _COHORTS, sketches, now))
        decision = self.engine.decide(query, history, sketches)
        if not decision.update.empty:
            at_once(self.store.credit(scope, caller, _COHORTS, decision.update, now))
        if decision.action is Action.DENY:
            return None, int(decision.level), self._refused(decision)
        conclusion = self.engine.conclude(decision, self._told(decision, logits))
        if not conclusion.update.empty:
            at_once(self.store.credit(scope, caller, _COHORTS, conclusion.update, now))
        if conclusion.action is Action.DENY:
            return None, int(decision.level), self._refused(conclusion.decision)
        _sound(conclusion.decision)
        return (logits if conclusion.y is None else conclusion.y), int(decision.level), False

    def _told(self, decision: Decision, logits: Array) -> Answer:
        """The model's answers to all that it is asked; no purifier stands in this defence."""
        views = tuple(self.on.model.logits(view) for view in decision.views)
        return Answer(logits, views)

    def _refused(self, decision: Decision) -> bool:
        """Count by what, and say whether it was by detectors alone."""
        _sound(decision)
        fired = [f for f in decision.findings if f.fired and f.mode is Mode.ENFORCE]
        for name in [f.stage for f in fired if f.stage != ALERT] or [ALERT]:
            self.blame[name] = self.blame.get(name, 0) + 1
        return bool(fired) and all(f.kind == "detector" for f in fired)


def _sound(decision: Decision) -> None:
    for finding in decision.findings:
        if finding.error is not None:
            raise RuntimeError(f"{finding.stage}: {finding.error}")


def guarded(data: str, seed: int, defence: Defence = DEFAULT, warm: int = WARM) -> Guarded:
    """With a history of so many benign rows, other than those that attacks start from."""
    on = ground(data)
    made = Guarded(on, engine_of(data, defence))
    for number, rows in enumerate(_warmth(on, warm, seed)):
        made.query(rows, on.model.logits(rows), f"benign-{number}")
    made.blame.clear()
    return made


def _warmth(on: Ground, rows: int, seed: int) -> Iterator[Array]:
    order = np.random.default_rng([seed, 77]).permutation(len(on.quiet))[:rows]
    for at in range(0, len(order), _WARM_CALL):
        yield on.unit(on.quiet.images[order[at : at + _WARM_CALL]])


def print_of(data: str, defence: Defence) -> Mapping[str, Any]:
    """What decides a guarded run, beside the attack."""
    return {
        **_fitted(data, defence), "policy": list(defence.policy), "step": STEP_S, "warm": WARM, "clean": defence.clean,
    }  # fmt: skip
