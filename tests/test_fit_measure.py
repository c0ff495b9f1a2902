"""Held-out rates: by the engine, on rows whose answers can be counted by hand."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from guard import registry
from guard.calibration import Calibration
from guard.fit_measure import Rate, measure, shadow
from guard.fit_stages import Chosen, Wanted
from guard.fit_subject import Subject
from guard.monitors.fingerprint import Fingerprint
from guard.profile import Profile, Space, StageFit, stage_options
from guard.types import Array, Mode, TensorSpec
from tests.fit_world import Pretended, clean_images, logits_of

SPACE = Space("nchw", (0.0,), (1.0,), certain=True)


@dataclass(frozen=True)
class Corner:
    """The value of one corner pixel."""

    right: bool = False

    def score(self, x: Array) -> Array:
        return x[:, 0, -1 if self.right else 0, 0]


@dataclass(frozen=True)
class Broken:
    """Fails."""

    def score(self, x: Array) -> Array:
        raise RuntimeError("broken")


@pytest.fixture(autouse=True)
def corners(monkeypatch):
    registry.load()
    own = {("detector", "left"): Corner, ("detector", "right"): Corner, ("detector", "broken"): Broken}
    monkeypatch.setattr(registry, "_stages", registry._stages | own)


def world(x, **stages):
    """A subject of these images, and a profile with these calibrations: name=(kind, stage, scores)."""
    served = Pretended((TensorSpec("x", "FP32", (-1, 1, 8, 8)),), lambda arrays: {"y": logits_of(arrays["x"])})
    subject = Subject(served, "x", {"x": x}, SPACE, "y", "logits")
    chosen = tuple(Chosen(Wanted(kind, name, stage_options(stage)), stage) for name, (kind, stage, _) in stages.items())
    fits = {
        c.wanted.key: StageFit(stage_options(c.impl), Calibration.of(np.asarray(stages[c.wanted.name][2], float)))
        for c in chosen
    }
    profile = Profile(served.metadata(), "x", "FP32", SPACE, "y", "logits", 4, fits)
    return subject, profile, chosen


def test_rates_are_counted_by_row_and_once_where_two_stages_agree():
    x = clean_images(50)[:, None]
    x[:, 0, 0, 0] = x[:, 0, 0, 7] = 0.0
    x[:3, 0, 0, 0] = 1.0  # left flags 0 1 2
    x[2:7, 0, 0, 7] = 1.0  # right flags 2 3 4 5 6
    scores = np.linspace(0, 0.9, 199)
    subject, profile, chosen = world(
        x, left=("detector", Corner(), scores), right=("detector", Corner(right=True), scores)
    )
    told = []
    measured = measure(
        subject,
        profile,
        shadow(profile, chosen, 0.01),
        np.arange(0),
        np.arange(50),
        progress=lambda *news: told.append(news),
    )
    assert measured.stages == {"detector/left": Rate(3, 50), "detector/right": Rate(5, 50)}
    assert measured.total == Rate(7, 50)
    assert measured.caller_p_values == {}
    assert told == [("measuring", 0, 50), ("measuring", 50, 50)]


def test_a_share_of_the_budget_is_what_counts():
    x = clean_images(20)[:, None]
    x[:, 0, 0, 0] = 0.985  # p = 4 / 200 = 0.02
    subject, profile, chosen = world(x, left=("detector", Corner(), np.linspace(0, 1, 199)))
    rates = [
        measure(subject, profile, shadow(profile, chosen, rate), np.arange(0), np.arange(20), progress=lambda *_: None)
        for rate in (0.019, 0.02)
    ]
    assert [rate.total.flagged for rate in rates] == [0, 20]


def test_monitors_see_the_fitted_rows_and_one_caller():
    base = clean_images(3, seed=5)[:, None]
    near = np.repeat(base, 20, axis=0)
    near[:, 0, 3, 3] = np.linspace(0.1, 0.9, 60)
    apart = np.random.default_rng(0).random((60, 1, 8, 8)).astype(np.float32)
    x = np.concatenate([base, near, apart])
    subject, profile, chosen = world(x, fingerprint=("monitor", Fingerprint(), np.linspace(0, 0.2, 999)))
    settings = shadow(profile, chosen, 0.01)
    alike = measure(subject, profile, settings, np.arange(3), np.arange(3, 63), progress=lambda *_: None)
    assert alike.caller_p_values["fingerprint"] < 1e-9
    assert alike.stages == {}
    assert alike.total == Rate(0, 60)  # monitors judge callers: no part of the rows' budget
    unlike = measure(subject, profile, settings, np.arange(3), np.arange(63, 123), progress=lambda *_: None)
    assert unlike.caller_p_values["fingerprint"] == 1.0


def test_a_stage_that_fails_is_no_rate():
    subject, profile, chosen = world(clean_images(5)[:, None], broken=("detector", Broken(), np.arange(199)))
    with pytest.raises(RuntimeError, match="broken: RuntimeError"):
        measure(subject, profile, shadow(profile, chosen, 0.01), np.arange(0), np.arange(5), progress=lambda *_: None)


def test_nothing_acts():
    _, profile, chosen = world(clean_images(2)[:, None], left=("detector", Corner(), np.arange(199)))
    settings = shadow(profile, chosen, 0.05)
    assert settings.mode is Mode.SHADOW
    assert settings.false_positive_rate == 0.05
    assert settings.profile == Path()


def test_rate_of_nothing():
    assert Rate(0, 0).rate == 0.0
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert Rate(1, 4).rate == 0.25
