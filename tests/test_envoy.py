"""The shipped Envoy configuration on a real Envoy: a caller stays on one replica, a rolling restart fails no call."""

import asyncio
import contextlib
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
    async with serving() as one, serving() as other, contextlib.AsyncExitStack() as stack:
        ports = []
        for server in (one, other):
            guard = await started(server.address)
            stack.push_async_callback(guard.drain)
            ports.append(int(guard.address.rpartition(":")[2]))
        address = await asyncio.to_thread(stack.enter_context, rolling.envoy(tmp_path, ports))
        channel = await stack.enter_async_context(aio.insecure_channel(address))
        method: Any = channel.unary_unary(INFER)
        where = set()
        for caller in range(24):
            before = [len(server.calls()) for server in (one, other)]
            for _ in range(4):
                await method(request(), timeout=60, metadata=(("x-api-key", f"caller {caller}"),))
            where.add(tuple(len(server.calls()) - was for server, was in zip((one, other), before, strict=True)))
        assert where == {(4, 0), (0, 4)}


async def started(address: str) -> app.App:
    made = settings(address, models=[], unlisted_models="allow")
    return await app.App.start(made, lambda: made, None)


@pytest.mark.long
@pytest.mark.parametrize("plane", ["grpcio", "fast"])
@pytest.mark.parametrize("balancer", ["envoy", "grpc"])
async def test_a_rolling_restart_fails_no_call(tmp_path: Path, balancer: str, plane: str) -> None:
    seen = await rolling.restart(tmp_path, balancer=balancer, plane=plane, callers=4)
    assert seen.failed == 0, seen.ends
    assert len(seen.served) == 4
    assert all(seen.served)


@pytest.mark.long
async def test_a_guard_that_is_killed_fails_calls(tmp_path: Path) -> None:
    """The control: without a drain, the same count is not zero."""
    assert (await rolling.restart(tmp_path, balancer="envoy", kill=True)).failed > 0
