"""The rows of the matrix: what breaks, what the settings say, what is to be expected, and what was seen.

A row is a coroutine function that gets an empty directory. It asserts the outcome and returns what it saw, in words.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from guard import registry
from tests.faults import stages
from tests.proxy import world
from tests.proxy.world import Guarded

Does = Callable[[Path], Awaitable[str]]
WITHIN_S = 5.0
"""How long beyond its own time a call may take here: machines may be busy. Without a bound it would be for ever."""


@dataclass(frozen=True)
class Row:
    """One fault. part: what breaks."""

    part: str
    fault: str
    settings: str
    expected: str
    does: Does

    @property
    def name(self) -> str:
        """For pytest."""
        return self.does.__name__


ROWS: list[Row] = []


def row(part: str, fault: str, settings: str, expected: str) -> Callable[[Does], Does]:
    """Decorator that adds a row."""

    def enter(does: Does) -> Does:
        ROWS.append(Row(part, fault, settings, expected, does))
        return does

    return enter


@contextlib.contextmanager
def known_stages() -> Iterator[None]:
    """The stages of the world, and those that fail."""
    before = registry._stages
    registry._stages = before | world.STAGES | stages.STAGES
    try:
        yield
    finally:
        registry._stages = before


def model(directory: Path, *detectors: dict, mode: str = "enforce", **values: object) -> dict[str, object]:
    """Settings of one guarded model."""
    made = {"name": "m", "profile": stages.profile(directory / "profile"), "mode": mode, "detectors": list(detectors)}
    return {**made, "policy": {"lag_rows": 1}, **values}


async def codes(guarded: Guarded, calls: int, body: bytes = b"", **options: float) -> "Counter[str]":
    """How so many calls end, one after the other; each of them does end."""
    body = body or world.request()
    ends: Counter[str] = Counter()
    for _ in range(calls):
        async with asyncio.timeout(float(options.get("timeout", 20)) + WITHIN_S):
            ends[(await guarded.unary(body, **options)).code.name] += 1
    return ends


def told(ends: "Counter[str]") -> str:
    """In words."""
    return ", ".join(f"{count} {name}" for name, count in sorted(ends.items()))


class Watch:
    """A stop-watch."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def s(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began
