import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager as Context
from typing import Any

import pytest

from tests.planes import served
from tests.planes.at import PLANES, chosen, here
from tests.proxy import world
from tests.proxy.conftest import world_stages
from tests.proxy.world import Guarded, Server

__all__ = ["world_stages"]  # the fixture


@pytest.fixture(scope="session", params=PLANES)
def plane(request: pytest.FixtureRequest) -> str:
    """What speaks HTTP/2."""
    if not here(request.param):
        pytest.skip(f"there is no plane {request.param}")
    return str(request.param)


@pytest.fixture
def behind(plane: str) -> Callable[..., Context[tuple[Server, Guarded]]]:
    """A server and Guard in front of it, in this process; keywords are settings."""

    def made(server: dict[str, Any] | None = None, **changes: Any) -> Context[tuple[Server, Guarded]]:
        return world.world(server, **chosen(plane), **changes)

    return made


@pytest.fixture
def guarding(plane: str) -> Callable[..., Context[Guarded]]:
    """Guard alone, in front of this address."""

    @contextlib.asynccontextmanager
    async def made(address: str, **changes: Any) -> AsyncIterator[Guarded]:
        async with world.guarding(world.settings(address, **chosen(plane), **changes)) as guarded:
            yield guarded

    return made


NOISE = {
    "grpcio": ("PollerCompletionQueue", "Invalid encoding", "UnicodeDecodeError"),
    "fast": ("PollerCompletionQueue",),
}
"""What grpc.aio logs of its own: where two event loops met, and at text that is none. Servers of tests use it, too."""


@pytest.fixture(autouse=True)
def quiet(plane: str, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, nothing in this process logs an error or an exception."""
    yield
    said = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR or r.exc_info]
    assert not [text for text in said if not any(noise in text for noise in NOISE[plane])]


@pytest.fixture(scope="session")
def far(plane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Far]:
    """Guard and a server behind it as processes of their own, for what would disturb a test's own process."""
    with served.far(plane, tmp_path_factory.mktemp(plane)) as made:
        yield made
