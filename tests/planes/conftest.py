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


def _is_loud(plane: str, record: logging.LogRecord) -> bool:
    if record.levelno < logging.ERROR and not record.exc_info:
        return False
    error = record.exc_info[1] if record.exc_info else None
    if plane == "grpcio" and type(error).__name__ == "_ServerStoppedError":  # a call in the moment of a stop
        return False
    return not any(noise in record.getMessage() for noise in NOISE[plane])


@pytest.fixture(autouse=True)
def quiet(plane: str, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, nothing in this process logs an error or an exception."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if _is_loud(plane, record)]


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a process of its own."""
    with served.upstream(tmp_path_factory.mktemp("upstream")) as address:
        yield address


@pytest.fixture(scope="session")
def far(plane: str, upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Far]:
    """Guard as a process of its own, for what would disturb a test's."""
    with served.far(plane, tmp_path_factory.mktemp(plane), upstream) as made:
        yield made
