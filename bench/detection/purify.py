"""Purifiers: how accurate the model is behind each, on clean inputs and on what attacks made for the bare model.

Robust accuracy is over all images that were attacked, the attack's failures among them: the share that the model still
labels rightly once the purifier has been over them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from adversary.attack import Array
from bench.detection import fitted, stagework
from bench.detection.subjects import Subject
from guard import equipping, networks, registry
from guard.settings import build_stage
from guard.types import Material

CLEAN, BARE = "clean", "none"
_OPTIONS: Mapping[str, Mapping[str, Any]] = {}
_WITHOUT = ("onnx_denoiser",)
"""Needs a file that somebody brings."""
_LEARN = 2_000


def names(data: str) -> tuple[str, ...]:
    """The purifiers that there are for a victim: those whose networks are there."""
    registry.load()
    available, made = fitted.networks_of(data), []
    for name in registry.names("purifier"):
        if name not in _WITHOUT:
            needs = equipping.needs_of(build_stage("purifier", name, dict(_OPTIONS.get(name, {}))))
            if set(needs) <= set(available):
                made.append(name)
    return tuple(made)


def material(on: Subject, upstream: stagework.Upstream, rows: int = _LEARN) -> Material:
    """What a purifier may learn from."""
    unit = stagework.unit(on.learn_x[:rows])
    return Material(unit, upstream.probabilities(unit), on.classes, seed=0)


def at_work(
    on: Subject, upstream: stagework.Upstream, name: str, secret: bytes = stagework.SECRET
) -> stagework.Working:
    """A purifier, ready."""
    loaded = {key: networks.load(raw) for key, raw in fitted.networks_of(on.name).items()}
    options = dict(_OPTIONS.get(name, {}))
    learns = equipping.learns(build_stage("purifier", name, options))
    taught = material(on, upstream) if learns else None
    return stagework.working("purifier", name, taught, options=options, raw=loaded, secret=secret)


def randomised(on: Subject, upstream: stagework.Upstream, name: str) -> bool:
    """Whether the secret makes a difference."""
    few, seen = stagework.unit(on.clean_x[:4]), []
    for secret in (b"one", b"another"):
        one = at_work(on, upstream, name, secret.ljust(32)).stage
        seen.append(np.asarray(one.copies(few)) if hasattr(one, "copies") else one.purify(few))
    return not np.array_equal(seen[0], seen[1])


def right(on: Subject, name: str, x: Array, y: Array) -> tuple[Array, int]:
    """(N, ...), (N,) -> (N,) whether the model labels each rightly behind the purifier; further upstream rows a row."""
    upstream = stagework.Upstream(on.onnx)
    if name == BARE:
        return np.asarray(upstream.labels(x) == y), 0
    labels, rows = stagework.purified_labels(at_work(on, upstream, name), x, upstream)
    return np.asarray(labels == y), rows
