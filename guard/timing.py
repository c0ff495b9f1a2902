"""Who wants to know how long each stage takes. The core has no clock: whoever listens has one.

A listener is of the thread that runs the engine (a context variable), so engines go on keeping nothing. Without one a
stage costs a look more.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Listener(Protocol):
    """Is there while a stage works."""

    def stage(self, kind: str, name: str) -> AbstractContextManager[object]:
        """Entered before the stage begins, left when it is done or has failed."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("guard stage listener", default=None)


def heard(listener: Listener, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The work, while the listener hears of its stages."""
    token = _listener.set(listener)
    try:
        return work(*args, **kwargs)
    finally:
        _listener.reset(token)


def run(kind: str, name: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """One stage's work."""
    listener = _listener.get()
    if listener is None:
        return work(*args, **kwargs)
    with listener.stage(kind, name):
        return work(*args, **kwargs)
