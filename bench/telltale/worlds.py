"""What is attacked: `guard serve` with the default policy and its controls, and what is sent to it.

    inputs    images with uniform noise: so much of it that a detector flags about half of them. No two are alike, each
              account sends a few.
    callers   fresh images and near-repeats of an account's first one, as a search by queries sends them, in random
              order. Some of these make the account suspicious, or join a cluster that is; the others do not.

A world has the detectors and the purifier of docs/detect.md's good start for `inputs`, and every monitor that need not
be asked for; for `callers` the monitors alone: the noise on repeats is what the detectors look for. All are fitted on
the `clean` split. `default` has no word of policy. `loud` refuses a flagged input, and acts upon levels at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adversary import serving, shelf
from adversary.attack import Array
from adversary.data.cache import sha256
from bench import profiles
from bench.monitors.ground import Ground, ground, home
from bench.monitors.guarded import Defence
from guard.fit_clean import Clean
from guard.fit_learn import Given
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.profile import save_profile
from guard.proxy.ask import ServedModel
from guard.settings import Embedded

NETWORKS = ("auxiliary", "denoiser")
DETECTORS: tuple[dict[str, Any], ...] = (
    {"stage": "pid"},
    {"stage": "purified_answer", "options": {"purifier": "learned_denoiser"}},
    {"stage": "input_statistics", "weight": 0.5},
)
PURIFIER = "learned_denoiser"
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "loud": {"on_input": "deny", "lag_rows": 1},
}
MONITORED = Defence().named
_CLEAN = 4000
_STEP = 0.04
"""Of the noise on near-repeats."""


@dataclass(frozen=True, slots=True, eq=False)
class Sending:
    """Queries in the order they are sent. x: (N, ...); account: (N,)."""

    x: Array
    account: Array


def noisy(data: str, accounts: int, each: int, seed: int, amounts: tuple[float, float]) -> Sending:
    """Images of the test split under noise; amounts: the least and the most of it."""
    on, rng = ground(data), np.random.default_rng([seed, 1])
    n = accounts * each
    order = rng.permutation(len(on.quiet))[:n]
    x = on.unit(on.quiet.images[order])
    amount = rng.uniform(*amounts, size=(n, *[1] * (x.ndim - 1)))
    return Sending(_within(x + amount * rng.uniform(-1.0, 1.0, x.shape)), np.arange(n) % accounts)


def searching(data: str, accounts: int, each: int, seed: int) -> Sending:
    """Fresh images and near-repeats, an account's queries one after the other; the same noise lies on both."""
    on, rng = ground(data), np.random.default_rng([seed, 2])
    n = accounts * each
    x = on.unit(on.quiet.images[rng.permutation(len(on.quiet))[:n]])
    first = np.arange(n) // each * each
    repeats = rng.random(n) < 0.5
    x[repeats] = x[first[repeats]]
    return Sending(_within(x + _STEP * rng.uniform(-1.0, 1.0, x.shape)), np.arange(n) // each)


def _within(x: Array) -> Array:
    return np.clip(x, 0.0, 1.0).astype(np.float32)


def profile(data: str) -> Path:
    """The place of the profile; it is made where it is not there yet."""
    on = ground(data)
    given = {name: profiles.kept(data, name).read_bytes() for name in NETWORKS}
    name = shelf.key(
        victim=on.sha256, networks={key: sha256(value) for key, value in given.items()},
        stages=[DETECTORS, PURIFIER, MONITORED], guard=serving.code_digest("guard", without=("proxy", "cli")),
    )  # fmt: skip
    place = home() / "profiles" / f"{data}-telltale-{name}"
    if not (place / "profile.json").is_file():
        _fit(on, given, place)
    return place


def _fit(on: Ground, given: Mapping[str, bytes], place: Path) -> None:
    stages = [Wanted("detector", one["stage"], one.get("options", {})) for one in DETECTORS]
    stages += [Wanted("purifier", PURIFIER, {}), *(Wanted("monitor", name, {}) for name in MONITORED)]
    options = Options(
        stages=tuple(stages),
        given=Given(networks=given),
        learn=Clean(arrays={"image": on.unit(on.learn.images)}),
        held_out=0.0,
        maximum=_CLEAN,
    )
    with ServedModel.embedded(Embedded(file=on.onnx, max_batch_rows=256), on.name, batch=128) as model:
        made = fit(model, Clean(arrays={"image": on.unit(on.clean.images)}), options)
    save_profile(made.profile, place)


def settings(data: str, policy: str | None, *, detectors: bool = True) -> dict[str, Any]:
    """Of `guard serve`. policy: None: the bare model."""
    model: dict[str, Any] = {"name": data, "embedded": {"file": str(ground(data).onnx)}}
    if policy is not None:
        model |= {
            "mode": "enforce",
            "profile": str(profile(data)),
            "detectors": list(DETECTORS) * detectors,
            "purifiers": [{"stage": PURIFIER}] * detectors,
            "monitors": [{"stage": name} for name in MONITORED],
            "policy": {key: value for key, value in POLICIES[policy].items() if detectors or key != "on_input"},
        }
    return {
        "listen": {"address": "127.0.0.1:0"},
        "admin": {"http": None, "grpc": None},
        "models": [model],
        "identity": {"chain": [{"kind": "api_key"}]},
        "limits": {"inspection_timeout_s": 60, "drain_s": 1.0},
    }
