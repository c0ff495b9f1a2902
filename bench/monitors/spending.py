"""The extraction budget at work: its curve as `guard fit` learns it, and engines that keep to it.

The curve is learned from what the profile's stages learn from and lies in the bench's home; nothing else of a profile
depends on it. An engine is the default one with the budget beside its monitors, or the budget alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from adversary import serving, shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench.monitors.client import Service, Told
from bench.monitors.ground import ground, home
from bench.monitors.guarded import DEFAULT, Guarded, guarded, profile, settings_of
from bench.monitors.guarded import print_of as print_of_default
from guard import extraction_budget
from guard.engine import Engine
from guard.extraction_budget import Curve
from guard.fit_clean import Clean
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.learning import _networks, _training, auxiliary, extraction_curve
from guard.profile import load_profile, save_profile, stage_key
from guard.proxy.ask import ServedModel
from guard.settings import Embedded
from guard.settings import Model as Settings

NAME = "extraction_budget"
_KEY = stage_key("monitor", NAME)
_CLEAN = 500  # rows to calibrate with: its scores are no test
_SECRET = b"a bench needs none that is secret"
_SAID = 300  # steps
_LEARNERS = (extraction_curve, auxiliary, _networks, _training)


@dataclass(frozen=True, slots=True)
class Spending:
    """What the budget does. limits: options of the monitor; policy: what differs from the default; alone: no other."""

    name: str
    limits: tuple[tuple[str, float], ...] = ()
    policy: tuple[tuple[str, str], ...] = ()
    alone: bool = False

    def settings(self, data: str) -> dict[str, Any]:
        """Of the model."""
        tree = settings_of(data, DEFAULT)
        monitors = [*([] if self.alone else tree["monitors"]), {"stage": NAME, "options": dict(self.limits)}]
        return {
            **tree, "monitors": monitors, "policy": dict(self.policy), "outputs": [{"stage": "label_only"}],
            "profile": str(where(data)), "embedded": {"file": "model.onnx"},
        }  # fmt: skip


_HOSTILE = ("hostile_at", 0.9)
DEGRADE = Spending("labels only from suspect on", policy=(("on_suspect", "degrade"),))
DENY = Spending("refused from 90 % on", (_HOSTILE,))
BOTH = Spending("both", (_HOSTILE,), (("on_suspect", "degrade"),))
ALONE = Spending("the budget alone", (_HOSTILE,), (("on_hostile", "allow"),), alone=True)


def where(data: str) -> Path:
    """Of the profile that holds the curve."""
    on, code = ground(data), [sha256(Path(module.__file__ or "").read_bytes()) for module in _LEARNERS]
    key = shelf.key(victim=on.sha256, code=code, learn=shelf.digest(on.learn.images), clean=_CLEAN)
    return home() / "profiles" / f"{data}-budget-{key}"


def make(data: str) -> None:
    """Learn the curve, by `guard fit`'s own function, where it is not there yet."""
    if (where(data) / "profile.json").is_file():
        return
    on, console = ground(data), Console(stderr=True)

    def tell(what: str, done: int, total: int) -> None:
        if done == total or (done and done % _SAID == 0):
            console.print(f"{data}: {what}: {done:,} of {total:,}", highlight=False)

    options = Options(
        stages=(Wanted("monitor", NAME),), learn=Clean(arrays={"image": on.unit(on.learn.images)}), held_out=0.0,
        maximum=_CLEAN,
    )  # fmt: skip
    with ServedModel.embedded(Embedded(file=on.onnx, max_batch_rows=256), data, batch=128) as model:
        made = fit(model, Clean(arrays={"image": on.unit(on.clean.images)}), options, progress=tell)
    save_profile(made.profile, where(data))


def points(data: str) -> Mapping[str, Array]:
    """counts and agreement, as they were measured."""
    make(data)
    return load_profile(where(data)).stages[_KEY].arrays


def curve(data: str) -> Curve:
    """What the monitor works with."""
    arrays = points(data)
    return Curve.of(arrays["counts"], arrays["agreement"])


@lru_cache(maxsize=4)
def engine(data: str, spending: Spending) -> Engine:
    """The default engine with the budget, or the budget alone."""
    make(data)
    own = load_profile(where(data))
    if not spending.alone:
        whole = profile(data, DEFAULT)
        own = replace(whole, stages={**whole.stages, _KEY: own.stages[_KEY]})
    return Engine(Settings.model_validate(spending.settings(data)), own, _SECRET)


def spent(data: str, seed: int, spending: Spending) -> Guarded:
    """A service with the history that the default one begins with; alone: with none."""
    if spending.alone:
        return Guarded(ground(data), engine(data, spending))
    made = guarded(data, seed)
    return Guarded(made.on, engine(data, spending), made.store, made.clock)


def print_of(data: str, spending: Spending) -> dict[str, Any]:
    """What decides a run with the budget, beside the attack."""
    arrays = points(data)
    return {
        **print_of_default(data, DEFAULT), "limits": list(spending.limits), "policy": list(spending.policy),
        "alone": spending.alone, "curve": [shelf.digest(arrays["counts"]), shelf.digest(arrays["agreement"])],
        "budget": sha256(Path(extraction_budget.__file__ or "").read_bytes()),
        "outputs": serving.code_digest("guard.outputs"),
    }  # fmt: skip


@dataclass(slots=True)
class Turns:
    """A service that takes one caller for many: his rows are dealt out to so many accounts in turn. sent: so far."""

    service: Service
    accounts: int
    sent: int = 0

    def answer(self, x: Array, caller: str) -> Told:
        """(N, ...) one query a row, in order."""
        who = [f"{caller}-{(self.sent + i) % self.accounts}" for i in range(len(x))]
        self.sent += len(x)
        parts = [self.service.answer(x[i : i + 1], name) for i, name in enumerate(who)]
        return Told(*(np.concatenate([getattr(part, name) for part in parts]) for name in Told.__slots__))
