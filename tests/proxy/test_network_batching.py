"""Networks of stages behind a running Guard: rows of concurrent calls in one run, and a reload in the middle of it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from guard import networks
from guard.calibration import Calibration
from guard.detectors.pid import Pid
from guard.profile import Profile, StageFit, save_profile, stage_key, stage_options
from guard.types import Array, Material
from tests import tiny_networks
from tests.proxy.world import METADATA, VECTOR, Guarded, answer, guarding, request, serving, settings

CALLS = 64
NET = {"network": "auxiliary"}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A profile with an auxiliary network, and a detector that works with it."""
    raw = tiny_networks.auxiliary((4,), classes=3)
    x = np.random.default_rng(0).random((200, 4), dtype=np.float32)
    arrays = Pid().learn(Material(x, answer(x), 3, {"auxiliary": networks.load(raw)}))
    calibration = Calibration.of(np.linspace(-50.0, 50.0, 1000))
    fit = StageFit(stage_options(Pid()), calibration, arrays=arrays)
    path: Path = tmp_path_factory.mktemp("pid") / "profile"
    stages = {stage_key("detector", "pid"): fit}
    made = Profile(METADATA, "x", "FP32", VECTOR, "y", "probabilities", 3, stages, networks={"auxiliary": raw})
    save_profile(made, path)
    return str(path)


def guarded_by(fitted: str, **values: Any) -> dict[str, Any]:
    model = {"name": "m", "profile": fitted, "mode": "enforce", "detectors": [{"stage": "pid"}]}
    return {
        "models": [model],
        "limits": {"inspection_threads": 16, "inspection_timeout_s": 20},
        "batching": {"where": "everywhere", "max_wait_us": 5000, **values},
    }


def inputs(seed: int = 0) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.random((1 + i % 2, 4), dtype=np.float32) for i in range(CALLS)]


async def ask(guarded: Guarded, xs: list[Array]) -> None:
    ends = await asyncio.gather(*(guarded.unary(request(x)) for x in xs))
    assert {end.code for end in ends} == {grpc.StatusCode.OK}


async def test_concurrent_calls_share_runs_and_are_counted(fitted: str) -> None:
    patient = guarded_by(fitted, max_wait_us=100_000)  # so that calls meet on a busy machine, too
    async with serving() as server, guarding(settings(server.address, **patient)) as guarded:
        await ask(guarded, inputs())
        ran = guarded.count("guard_network_batch_rows_count", **NET)
        assert guarded.count("guard_network_batch_rows_sum", **NET) == CALLS * 1.5
        assert 1 <= ran < CALLS
        assert guarded.count("guard_network_wait_seconds_count", **NET) == CALLS
        assert guarded.count("guard_stage_errors_total", model="m", stage="pid") == 0


@pytest.mark.parametrize("values", [{"where": "nowhere"}, {"max_rows": 1}])
async def test_where_it_is_off_nothing_is_gathered(fitted: str, values: dict[str, Any]) -> None:
    async with serving() as server, guarding(settings(server.address, **guarded_by(fitted, **values))) as guarded:
        await ask(guarded, inputs()[:4])
        assert guarded.count("guard_network_batch_rows_count", **NET) == 0


async def test_a_reload_between_batches_loses_no_call(fitted: str) -> None:
    async with serving() as server:
        current = settings(server.address, **guarded_by(fitted))
        async with guarding(current) as guarded:
            guarded.app._load = lambda: settings(server.address, **guarded_by(fitted, max_rows=4))
            calls = asyncio.ensure_future(ask(guarded, inputs()))
            await asyncio.sleep(0.02)
            assert await guarded.app.reload()
            await calls
            await ask(guarded, inputs(1))
            assert guarded.count("guard_network_batch_rows_sum", **NET) == CALLS * 3
            assert guarded.count("guard_stage_errors_total", model="m", stage="pid") == 0
            assert guarded.app.runtime.settings.batching.max_rows == 4
