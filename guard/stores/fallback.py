"""A shared store that may be away, with a local one for meanwhile.

While the shared store does not answer, history is kept in this process: a caller's evidence starts from nothing here,
and what is learned here stays here. The shared one is tried again after `RETRY_S`, by one query at a time, so that its
deadline is not waited for by everybody; once it answers, it is used again.
"""

import logging
from collections.abc import Callable

from guard.stores.memory import MemoryStore
from guard.types import History, Past, Sketches, Store, Update

RETRY_S = 1.0
OWN = 2**52
"""Numbers of the own store's rows are above it, so that what is credited to a row goes where the row is."""
_log = logging.getLogger(__name__)


class FallbackStore:
    """`shared` while it answers, else `own`.

    own:     None: exchanges raise OSError while the shared store is away, and monitors' `on_error` decides.
    on_away: is told whenever the shared store goes away, and comes back.
    """

    local = False

    def __init__(
        self, shared: Store, own: MemoryStore | None, *, on_away: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._shared, self._own, self._on_away = shared, own, on_away
        self._retry_at = 0.0
        self.away = False

    @property
    def entries(self) -> int:
        """Rows remembered in this process."""
        return 0 if self._own is None else self._own.entries

    async def exchange(
        self, scope: str, caller: str, cohorts: tuple[str, ...], sketches: Sketches, now: float, *,
        remember: bool = True,
    ) -> History:  # fmt: skip
        """Raises OSError where the shared store is away and there is none of this process's own."""
        if self._tries(now):
            try:
                found = await self._shared.exchange(scope, caller, cohorts, sketches, now, remember=remember)
            except OSError as error:
                self._gone(error, now)
            else:
                self._back()
                return found
        if self._own is None:
            raise OSError("the store is away")
        return await self._own.exchange(scope, caller, cohorts, sketches, now, remember=remember)

    async def credit(self, scope: str, caller: str, cohorts: tuple[str, ...], update: Update, now: float) -> None:
        """To the store that has the rows; without rows, to the one in use. What the shared one cannot take is lost."""
        numbers = (*update.joins, *update.components, *(row.number for row in update.answered))
        own = self.away if max(numbers, default=-1) < 0 else max(numbers) > OWN
        if not own:
            try:
                await self._shared.credit(scope, caller, cohorts, update, now)
            except OSError as error:
                self._gone(error, now)
        elif self._own is not None:
            await self._own.credit(scope, caller, cohorts, update, now)

    async def callers(self, scope: str) -> list[tuple[str, Past]]:
        """Raises OSError where the shared store is away."""
        return await self._in_use.callers(scope)

    async def past(self, scope: str, caller: str) -> Past | None:
        """Raises OSError where the shared store is away."""
        return await self._in_use.past(scope, caller)

    async def forget(self, scope: str, caller: str) -> bool:
        """In both. Raises OSError where the shared store is away."""
        here = False if self._own is None else await self._own.forget(scope, caller)
        return await self._shared.forget(scope, caller) or here

    async def close(self) -> None:
        """Close both."""
        await self._shared.close()
        if self._own is not None:
            await self._own.close()

    @property
    def _in_use(self) -> Store:
        return self._own if self.away and self._own is not None else self._shared

    def _tries(self, now: float) -> bool:
        if self.away and now < self._retry_at:
            return False
        self._retry_at = now + RETRY_S  # of a store that is away: nobody else tries meanwhile
        return True

    def _gone(self, error: OSError, now: float) -> None:
        self._retry_at = now + RETRY_S
        if not self.away:
            self.away = True
            self._on_away(True)
            _log.error("the shared store is away: %s", type(error).__name__)

    def _back(self) -> None:
        if self.away:
            self.away = False
            self._on_away(False)
            _log.warning("the shared store is back")
