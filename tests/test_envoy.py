"""The shipped Envoy configuration on a real Envoy: a caller stays on one replica, a rolling restart fails no call."""

from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from deploy import rolling
from guard.proxy import app
from tests.proxy.world import INFER, request, serving, settings


def test_envoy_takes_the_configuration() -> None:
    rolling.validate()


async def test_a_caller_stays_on_one_replica(tmp_path: Path) -> None:
    """By the key, where there is one; and callers are on both."""
    async with serving() as one, serving() as other:
        guards = [await app.App.start(made, lambda: None, None) for made in map(passing, (one.address, other.address))]  # type: ignore[arg-type,return-value]
        try:
            with rolling.envoy(tmp_path, [int(each.address.rpartition(":")[2]) for each in guards]) as address:
                async with aio.insecure_channel(address) as channel:
                    method: Any = channel.unary_unary(INFER)
                    where = []
                    for caller in range(24):
                        before = [len(server.calls()) for server in (one, other)]
                        for _ in range(4):
                            await method(request(), timeout=60, metadata=(("x-api-key", f"caller {caller}"),))
                        after = [len(server.calls()) for server in (one, other)]
                        where.append(tuple(b - a for a, b in zip(before, after, strict=True)))
        finally:
            for each in guards:
                await each.drain()
        assert set(where) == {(4, 0), (0, 4)}
        forged = [value for call in one.calls() for key, value in call.metadata if key == "x-guard-peer"]
        assert set(forged) <= {"127.0.0.1"}


def passing(address: str) -> Any:
    return settings(address, models=[], unlisted_models="allow")


async def test_a_rolling_restart_fails_no_call(tmp_path: Path) -> None:
    seen = await rolling.restart(tmp_path, balancer="envoy", callers=2)
    assert (seen.failed, seen.ends["OK"] > 0) == (0, True), seen.ends
    assert len(seen.served) == 4
    assert all(seen.served)


@pytest.mark.long
@pytest.mark.parametrize("plane", ["grpcio", "fast"])
@pytest.mark.parametrize("balancer", ["envoy", "grpc"])
async def test_many_callers_and_rounds(tmp_path: Path, balancer: str, plane: str) -> None:
    seen = await rolling.restart(tmp_path, balancer=balancer, plane=plane, rounds=2)
    assert seen.failed == 0, seen.ends
    assert all(seen.served)


@pytest.mark.long
async def test_a_guard_that_is_killed_fails_calls(tmp_path: Path) -> None:
    """The control: without a drain, the same count is not zero."""
    assert (await rolling.restart(tmp_path, balancer="envoy", kill=True)).failed > 0
