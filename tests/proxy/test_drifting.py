"""Drift as it is watched in the proxy: on what is decided, off what is flagged, shown as gauges and in the status."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard import drift
from guard.types import Array
from tests.proxy.test_extra_rows import model, thrice
from tests.proxy.test_inspection import MEAN
from tests.proxy.world import VECTOR, Guarded, eventually, guarding, profile, request, serving, settings, world

pytestmark = pytest.mark.usefixtures("world_stages", "thrice")
__all__ = ["model", "thrice"]  # the fixtures

BOTH = {"detectors": [{"stage": "test_mean"}, {"stage": "test_views"}]}


def rows(count: int, low: float = 0.0, high: float = 0.5, seed: int = 0) -> Array:
    """(count, 4) whose means are spread evenly, as the profile's are from 0 to 0.5."""
    means = np.random.default_rng(seed).uniform(low, high, (count, 1))
    return np.repeat(means, 4, axis=1).astype(np.float32)


def gauge(guarded: Guarded, name: str, stage: str = "test_mean") -> float | None:
    return guarded.metrics._registry.get_sample_value(f"guard_drift_{name}", {"model": "m", "stage": stage})


async def send(guarded: Guarded, x: Array) -> None:
    for start in range(0, len(x), 50):
        await guarded.unary(request(x[start : start + 50]))


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
async def test_inputs_that_drift_raise_an_alarm_and_others_do_not(model: Any, mode: str) -> None:
    async with world(**model(MEAN, mode=mode)) as (_, guarded):
        await send(guarded, rows(drift.EVERY - 50))
        assert gauge(guarded, "alarm") is None
        await send(guarded, rows(800, seed=1))
        assert gauge(guarded, "alarm") == 0
        assert gauge(guarded, "distance") < 0.1
        await send(guarded, rows(1000, low=0.2, high=0.49, seed=2))
        assert gauge(guarded, "alarm") == 1
        assert gauge(guarded, "distance") > 0.2


async def test_what_a_detector_flags_is_no_drift(model: Any) -> None:
    async with world(**model(MEAN, mode="shadow")) as (_, guarded):
        x = rows(1000)
        x[::3] = 0.9
        await send(guarded, np.concatenate([x, x]))
        assert gauge(guarded, "alarm") == 0
        report = guarded.app.runtime.models["m"].drift.reports["test_mean"]
        assert report.observed == pytest.approx(0.34, abs=0.02)


async def test_stages_that_see_suspicious_inputs_only_are_not_watched(model: Any) -> None:
    for values, stages in (({}, {"test_mean", "test_thrice"}), ({"escalate_below": 0.2}, {"test_mean"})):
        detectors = {"detectors": [{"stage": "test_mean"}, {"stage": "test_thrice"}]}
        async with world(**model(detectors, **values)) as (_, guarded):
            assert set(guarded.app.runtime.models["m"].drift.stages) == stages


async def test_a_reload_forgets_only_what_has_changed(tmp_path: Path) -> None:
    path = profile(tmp_path / "profile", space=VECTOR)
    shown = {"name": "m", "profile": path, "detectors": [{"stage": "test_mean"}]}
    async with serving() as server:
        made = [settings(server.address, models=[shown])]
        async with guarding(made[0]) as guarded:
            guarded.app._load = lambda: made[0]
            await eventually(lambda: guarded.app.runtime.models["m"].is_current)
            await send(guarded, rows(1000, low=0.3, high=0.49))
            assert gauge(guarded, "alarm") == 1
            first = guarded.app.runtime.models["m"].drift
            made[0] = settings(server.address, models=[shown | {"canary": 0.5}])
            await guarded.app.reload()
            assert guarded.app.runtime.models["m"].drift is first
            assert gauge(guarded, "alarm") == 1
            made[0] = settings(server.address, models=[shown | {"false_positive_rate": 0.02}])
            await guarded.app.reload()
            assert guarded.app.runtime.models["m"].drift is not first
            assert gauge(guarded, "alarm") == 0
