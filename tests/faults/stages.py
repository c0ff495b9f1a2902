"""Stages that fail in each of the ways in which code of others can."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from guard.calibration import Calibration
from guard.profile import StageFit, load_profile, save_profile, stage_key, stage_options
from guard.types import Array, Bools
from tests.proxy import world

How = Literal["well", "raises", "hangs", "nan", "shape"]
HANG_S = 2.0


def _fail(how: How, out: Array) -> Array:
    if how == "raises":
        raise RuntimeError("a secret of the stage")
    if how == "hangs":
        time.sleep(HANG_S)
    if how == "nan":
        return np.full_like(out, np.nan)
    return out[:0] if how == "shape" else out


@dataclass(frozen=True)
class FaultyDetector:
    """Finds nothing, or fails."""

    free: ClassVar[tuple[str, ...]] = ("how",)

    how: How = "well"

    def score(self, x: Array) -> Array:
        return _fail(self.how, np.zeros(len(x)))


@dataclass(frozen=True)
class FaultyPurifier:
    """Changes nothing, or fails."""

    how: How = "well"

    def purify(self, x: Array) -> Array:
        return _fail(self.how, x)


@dataclass(frozen=True)
class FaultyOutput:
    """Changes nothing, or fails."""

    how: How = "well"

    def protect(self, probs: Array, suspicion: Bools) -> Array:
        return _fail(self.how, probs)


STAGES: dict[tuple[Any, str], type] = {
    ("detector", "test_faulty"): FaultyDetector,
    ("purifier", "test_faulty"): FaultyPurifier,
    ("output", "test_faulty"): FaultyOutput,
}


def profile(path: Path) -> str:
    """The world's profile, with a detector that fails however it is told to."""
    world.profile(path)
    known = load_profile(path)
    fit = StageFit(stage_options(FaultyDetector()), Calibration.of(np.linspace(0, 0.5, 1000)))
    save_profile(replace(known, stages={**known.stages, stage_key("detector", "test_faulty"): fit}), path)
    return str(path)
