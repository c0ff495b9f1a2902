"""Small stages, profiles and settings that several test files share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from guard.calibration import Calibration
from guard.profile import Profile, Space, StageFit, stage_key, stage_options
from guard.settings import Model
from guard.types import (
    Array,
    Bools,
    Equipment,
    Kind,
    Level,
    Material,
    ModelMetadata,
    Past,
    Recent,
    Seen,
    TensorSpec,
)

METADATA = ModelMetadata(
    "m", ("1",), "onnxruntime_onnx", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 3)),)
)


@dataclass(frozen=True)
class MeanDetector:
    """The mean of a row."""

    scale: float = 1.0

    def score(self, x: Array) -> Array:
        return self.scale * x.reshape(len(x), -1).mean(axis=1)


@dataclass(frozen=True)
class ViewGap:
    """The L1 gap between the answers on x and on x set to 0."""

    def views(self, x: Array) -> tuple[Array, ...]:
        return (np.zeros_like(x),)

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        return np.abs(probs - view_probs[0]).sum(axis=1)


@dataclass(frozen=True)
class BrokenDetector:
    """Fails in the way it is told to."""

    how: str = "raise"

    def score(self, x: Array) -> Array:
        if self.how == "raise":
            raise RuntimeError("secret detail of the client's data")
        return {"nan": np.full(len(x), np.nan), "shape": np.zeros((len(x), 2))}[self.how]


@dataclass(frozen=True)
class BrokenViews:
    """Cannot make its views."""

    def views(self, x: Array) -> tuple[Array, ...]:
        return (x[:, :1],)

    def score_views(self, probs: Array, view_probs: tuple[Array, ...]) -> Array:
        return np.zeros(len(probs))


@dataclass(frozen=True)
class ImagesOnly:
    """Works on images only."""

    needs_images: ClassVar[bool] = True

    def score(self, x: Array) -> Array:
        return x.mean(axis=(1, 2, 3))


@dataclass(frozen=True)
class Halve:
    """Halves every value."""

    def purify(self, x: Array) -> Array:
        return x * np.float32(0.5)


@dataclass(frozen=True)
class BrokenPurifier:
    """Returns NaN."""

    def purify(self, x: Array) -> Array:
        return np.full_like(x, np.nan)


@dataclass(frozen=True)
class OverlapMonitor:
    """Scores a row by its overlap with an earlier one."""

    searches: ClassVar[bool] = True
    broken: str = ""

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        if self.broken == "raise":
            raise RuntimeError("secret detail of the client's data")
        overlaps = np.array([row.match.overlap for row in rows], dtype=np.float64)
        return overlaps[:0] if self.broken == "count" else overlaps


@dataclass(frozen=True)
class ClusterMonitor:
    """Scores a row by how near it lies to another; speaks against the cluster that it joins."""

    credits: ClassVar[str] = "component"
    broken: bool = False

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        if self.broken:
            raise RuntimeError
        return np.array([0.0 if row.link is None else 1.0 / (1.0 + row.link.distance) for row in rows])

    def joins(self, seen: Seen) -> bool:
        return seen.link is not None and seen.link.distance < 1.0


@dataclass(frozen=True)
class UnsureMonitor:
    """One less the largest probability of the answer."""

    def judge_answers(self, rows: tuple[Seen, ...], past: Past, probs: Array) -> Array:
        return np.asarray(1.0 - probs.max(axis=1))


@dataclass(frozen=True)
class OneClassMonitor:
    """The share of the commonest answer among a caller's latest rows."""

    window: int = 8
    broken: bool = False

    def judge_window(self, recent: Recent) -> float:
        return np.nan if self.broken else float(np.bincount(recent.labels).max() / len(recent))


@dataclass(frozen=True)
class BudgetMonitor:
    """How many rows a caller has had answers to: a measure, and no test."""

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        return np.full(len(rows), float(past.rows))

    def level(self, score: float) -> Level:
        return Level.SUSPECT if score >= 100 else Level.CLEAR


@dataclass(frozen=True)
class AgreementMonitor:
    """An estimate of how well a copy would agree: a hundredth a row."""

    measures: ClassVar[str] = "agreement"

    def judge(self, rows: tuple[Seen, ...], past: Past) -> Array:
        return np.full(len(rows), past.rows / 100.0)

    def level(self, score: float) -> Level:
        return Level.CLEAR


@dataclass(frozen=True)
class Uniform:
    """Answers nothing for suspicious rows."""

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        out = probs.copy()
        out[suspicion] = 1.0 / probs.shape[1]
        return out


@dataclass(frozen=True)
class Echo:
    """Of suspicious rows, tells the input's first value."""

    def protect_keyed(self, x: Array, probs: Array, suspicion: Bools) -> Array:
        out = probs.copy()
        first = x[suspicion, 0].astype(np.float64)
        out[suspicion] = np.stack([first, 1.0 - first, np.zeros_like(first)], axis=1)
        return out


@dataclass(frozen=True)
class BrokenOutput:
    """Returns rows that are no distribution."""

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        return probs * 2.0


@dataclass(frozen=True)
class WrongShapeOutput:
    """Returns another shape."""

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        return probs[:, :1]


@dataclass(frozen=True)
class Surprise:
    """One less the answer's probability of the class that the row's first value points at."""

    def score_answer(self, x: Array, probs: Array) -> Array:
        return np.asarray(1.0 - probs[np.arange(len(x)), np.minimum(2, (x[:, 0] * 3).astype(int))])


@dataclass(frozen=True)
class Ballot:
    """The mean of the answers on x and on x halved."""

    broken: str = ""

    def copies(self, x: Array) -> tuple[Array, ...]:
        return (x[:, :1],) if self.broken == "copies" else (x, x * np.float32(0.5))

    def vote(self, copy_probs: tuple[Array, ...]) -> Array:
        return np.ones_like(copy_probs[0]) if self.broken == "vote" else np.mean(copy_probs, axis=0)


@dataclass(frozen=True)
class OtherBallot(Ballot):
    """Another."""


@dataclass(frozen=True)
class Centred:
    """The distance of the mean from what was learned; needs a network where it is told to."""

    network: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        return ("auxiliary",) if self.network else ()

    def learn(self, material: Material) -> Mapping[str, Array]:
        return {"centre": material.x.mean(axis=0)}

    def equip(self, equipment: Equipment) -> Any:
        if "centre" not in equipment.arrays:
            raise ValueError("there is no centre")
        return _FromCentre(equipment)


@dataclass(frozen=True, eq=False)
class _FromCentre:
    equipment: Equipment

    def score(self, x: Array) -> Array:
        return np.asarray(np.abs(x - self.equipment.arrays["centre"]).mean(axis=1))


@dataclass(frozen=True)
class Taught:
    """A purifier that moves rows to what was learned."""

    def learn(self, material: Material) -> Mapping[str, Array]:
        return {"centre": material.x.mean(axis=0)}

    def equip(self, equipment: Equipment) -> Any:
        return _ToCentre(equipment.arrays["centre"])


@dataclass(frozen=True, eq=False)
class _ToCentre:
    centre: Array

    def purify(self, x: Array) -> Array:
        return np.broadcast_to(self.centre, x.shape).astype(np.float32)


STAGES: dict[tuple[Kind, str], type[Any]] = {
    ("detector", "test_mean"): MeanDetector,
    ("detector", "test_views"): ViewGap,
    ("detector", "test_broken"): BrokenDetector,
    ("detector", "test_broken_views"): BrokenViews,
    ("detector", "test_images"): ImagesOnly,
    ("purifier", "test_halve"): Halve,
    ("purifier", "test_broken"): BrokenPurifier,
    ("monitor", "test_overlap"): OverlapMonitor,
    ("monitor", "test_cluster"): ClusterMonitor,
    ("monitor", "test_unsure"): UnsureMonitor,
    ("monitor", "test_one_class"): OneClassMonitor,
    ("monitor", "test_budget"): BudgetMonitor,
    ("monitor", "test_agreement"): AgreementMonitor,
    ("detector", "test_surprise"): Surprise,
    ("detector", "test_centred"): Centred,
    ("purifier", "test_ballot"): Ballot,
    ("purifier", "test_other_ballot"): OtherBallot,
    ("purifier", "test_taught"): Taught,
    ("output", "test_uniform"): Uniform,
    ("output", "test_echo"): Echo,
    ("output", "test_broken"): BrokenOutput,
    ("output", "test_wrong_shape"): WrongShapeOutput,
}


def profile_of(
    scores: Mapping[tuple[Kind, str], Any],
    *,
    meaning: Any = "probabilities",
    space: Space | None = None,
    joint: bool = False,
    arrays: Mapping[str, Mapping[str, Array]] | None = None,
    networks: Mapping[str, bytes] | None = None,
) -> Profile:
    """A profile over (N, 4) vectors in [0, 1] and 3 classes: {(kind, name): (stage, calibration scores)}.

    joint: the scores are known by row, for detectors.
    """
    fits = {}
    for (kind, name), (stage, values) in scores.items():
        key, known = stage_key(kind, name), None if values is None else np.asarray(values, dtype=np.float64)
        fits[key] = StageFit(
            stage_options(stage),
            None if known is None else Calibration.of(known),
            known if joint and kind == "detector" else None,
            (arrays or {}).get(key, {}),
        )
    return Profile(
        metadata=METADATA,
        input_name="x",
        datatype="FP32",
        space=space or Space("vector", (0.0,), (1.0,), certain=True),
        output_name="y",
        meaning=meaning,
        classes=3,
        stages=fits,
        networks=networks or {},
    )


def model_of(**values: Any) -> Model:
    """Settings of one enforcing model at a budget of 10 %, as a file would give them; levels act at once."""
    rates = {"false_positive_rate": 0.1, "false_alarms_per_caller_month": 0.01}
    tree = {"name": "m", "profile": "p", "mode": "enforce"} | rates
    return Model.model_validate(tree | values | {"policy": {"lag_rows": 1} | values.get("policy", {})})
