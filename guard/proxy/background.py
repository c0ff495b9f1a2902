"""Work that goes on after a call was answered: bounded, and what finds no place is told so."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Background:
    """At most `places` tasks at once. All calls come from the event loop's thread."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        """Start the work; False where there is no place for it."""
        if len(self._tasks) >= self._places:
            work.close()
            return False
        task = asyncio.create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - nobody else would hear of it
            _log.exception("work in the background failed")

    async def drain(self, timeout_s: float) -> None:
        """Let what runs end, then cancel what is left."""
        if self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=max(0.0, timeout_s))
            for task in late:
                task.cancel()
