"""Which plane carries calls: grpcio, or the fast one where it is asked for and can be used."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from guard.proxy import server, upstream
from guard.proxy.fast import library
from guard.proxy.seam import Upstream
from guard.proxy.server import Gate
from guard.settings import Listen, Settings
from guard.settings import Upstream as UpstreamSettings

_log = logging.getLogger(__name__)


class Listening(Protocol):
    """A bound server."""

    async def start(self) -> None:
        """Take calls."""
        ...

    async def stop(self, grace: float | None) -> None:
        """Take no new calls; those in flight may take so many seconds more."""
        ...


def in_use(settings: Settings) -> str:
    """`grpcio` or `fast`: what is asked for, if it can be used."""
    return "fast" if settings.plane == "fast" and library.unusable is None else "grpcio"


def explain(settings: Settings) -> None:
    """Tell the log which plane carries calls, where that is not what is asked for, or not the default."""
    if settings.plane == "fast" and library.unusable is not None:
        _log.error("plane: fast cannot be used, grpcio is: %s", library.unusable)
    elif settings.plane == "fast":
        loop = type(asyncio.get_running_loop()).__module__
        _log.info("plane: fast, libnghttp2 %s, event loop of %s", library.binding.VERSION, loop)


def make_server(gate: Gate, settings: Settings, listen: Listen, *, shared: bool = False) -> tuple[Listening, str]:
    """A bound server, not started, and where it listens; shared: workers share the address. Raises ConfigError."""
    if in_use(settings) == "fast":
        from guard.proxy.fast import listener  # noqa: PLC0415 - only where it is used

        return listener.make_server(gate, listen, settings.limits, shared=shared)
    return server.make_server(gate, listen, settings.limits, shared=shared)


def make_upstream(settings: Settings, where: UpstreamSettings) -> Upstream:
    """A server over the network. Raises ConfigError."""
    if in_use(settings) == "fast":
        from guard.proxy.fast.upstream import FastUpstream  # noqa: PLC0415 - only where it is used

        return FastUpstream(where, settings.limits)
    return upstream.RemoteUpstream(where, settings.limits)


def new_loop(settings: Settings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop: uvloop's, for the fast plane where it is installed; None: asyncio's own."""
    if in_use(settings) != "fast":
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        _log.info("uvloop is not installed (extra `fast`): the fast plane runs on asyncio's own event loop")
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
