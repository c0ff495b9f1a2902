"""Stages at work outside the engine: built, taught and equipped as `guard fit` does it, asked about some rows.

For what the engine's one decision does not show: purifiers, single detectors with other options.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from guard import networks, registry
from guard.equipping import equip, learner_of
from guard.profile import stage_key, to_probabilities
from guard.settings import build_stage
from guard.types import AnswerDetector, Kind, Material, Network, ViewDetector, VotingPurifier

SECRET = b"bench.detection: what is random is drawn from this"
_CHUNK = 128


class Upstream:
    """The served model, as what serves it runs it: its ONNX file by onnxruntime."""

    def __init__(self, onnx: Path) -> None:
        self._network = networks.load(onnx)

    def answers(self, x: Array) -> Array:
        """(N, C, H, W) -> its first output, (N, C)."""
        return next(iter(self._network(np.ascontiguousarray(x, np.float32)).values()))

    def probabilities(self, unit: Array) -> Array:
        """(N, H, W, C) unit form -> (N, C) rows that sum to 1."""
        return to_probabilities(self.answers(planar(unit)), "logits")

    def labels(self, x: Array) -> Array:
        """(N, C, H, W) -> (N,)."""
        parts = [self.answers(x[at : at + _CHUNK]).argmax(1) for at in range(0, len(x), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def unit(x: Array) -> Array:
    """(N, C, H, W) as models here take them -> unit form, (N, H, W, C)."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1), np.float32)


def planar(x: Array) -> Array:
    """The inverse of `unit`."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """One stage at work."""

    key: str
    stage: Any

    @property
    def randomised(self) -> bool:
        """Whether what it makes of an input depends on the secret, as far as its class says."""
        return bool(getattr(self.stage, "randomised", False))


def working(
    kind: Kind,
    name: str,
    material: Material | None,
    *,
    options: Mapping[str, Any] | None = None,
    raw: Mapping[str, Network] | None = None,
    secret: bytes = SECRET,
) -> Working:
    """Build, teach, equip. Raises ValueError, KeyError for what the stage cannot do without."""
    registry.load()
    key, stage = stage_key(kind, name), build_stage(kind, name, options or {})
    learn = learner_of(stage)
    arrays = {} if learn is None or material is None else learn(material)
    return Working(key, equip(stage, key, raw or {}, arrays, secret))


def score(one: Working, x: Array, upstream: Upstream) -> tuple[Array, int]:
    """(N, C, H, W) -> (N,) scores of a detector, and the upstream rows that an input cost beyond its own."""
    parts, rows = [], 0
    for at in range(0, len(x), _CHUNK):
        seen = unit(x[at : at + _CHUNK])
        if isinstance(one.stage, ViewDetector):
            views = one.stage.views(seen)
            rows = len(views)
            answers = tuple(upstream.probabilities(view) for view in views)
            parts.append(one.stage.score_views(upstream.probabilities(seen), answers))
        elif isinstance(one.stage, AnswerDetector):
            parts.append(one.stage.score_answer(seen, upstream.probabilities(seen)))
        else:
            parts.append(one.stage.score(seen))
    return np.concatenate(parts), rows


def purified_labels(one: Working, x: Array, upstream: Upstream) -> tuple[Array, int]:
    """(N, C, H, W) -> (N,) labels behind a purifier, and the upstream rows that an input cost beyond its own."""
    parts, rows = [], 0
    for at in range(0, len(x), _CHUNK):
        seen = unit(x[at : at + _CHUNK])
        if isinstance(one.stage, VotingPurifier):
            copies = one.stage.copies(seen)
            rows = len(copies)
            probs = one.stage.vote(tuple(upstream.probabilities(copy) for copy in copies))
        else:
            probs = upstream.probabilities(one.stage.purify(seen))
        parts.append(probs.argmax(1))
    return np.concatenate(parts), rows
