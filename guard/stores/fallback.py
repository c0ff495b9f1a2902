"""A shared store that may be away, with a local one for meanwhile.

While the shared store does not answer, history is kept in this process: a caller's evidence starts from nothing here,
and what is learned here stays here, for the next time that the shared one is away. That one is tried again after
`RETRY_S`, by one query at a time, so that its deadline is not waited for by everybody; once it answers, it is used
again. Of a cluster, one model's history can be away while another's is not: then each is tried by itself.

A caller who is forgiven meanwhile is forgiven here at once, and in the shared store before it is used again.

A caller's token buckets are full here when the shared store goes away, and each process grants him his budget by
itself. Nothing is carried over when it is back: what was spent here is not owed there.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from guard.stores.memory import MemoryStore
from guard.types import Bucket, History, Past, Sketches, Store, Update

RETRY_S = 1.0
OWN = 2**52
"""Numbers of the own store's rows are above it, so that what is credited to a row goes where the row is."""
MAX_OWED = 100
T = TypeVar("T")
_log = logging.getLogger(__name__)


class FallbackStore:
    """`shared` while it answers, else `own`.

    own:     None: everything raises OSError while the shared store is away; for monitors `on_error` decides.
    apart:   the shared store is a cluster, and may be away for one model alone.
    on_away: is told whenever the shared store goes away, for the first model, and comes back, for the last.
    """

    local = False

    def __init__(
        self,
        shared: Store,
        own: MemoryStore | None,
        *,
        apart: bool = False,
        on_away: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._shared, self._own, self._apart, self._on_away = shared, own, apart, on_away
        self._retry_at: dict[str, float] = {}  # of what is away
        self._owed: dict[tuple[str, str], None] = {}
        self._said = ""

    @property
    def away(self) -> bool:
        """Whether the shared store is, for any model."""
        return bool(self._retry_at)

    @property
    def entries(self) -> int:
        """Rows remembered in this process."""
        return 0 if self._own is None else self._own.entries

    async def exchange(
        self, scope: str, caller: str, cohorts: tuple[str, ...], sketches: Sketches, now: float, *,
        remember: bool = True,
    ) -> History:  # fmt: skip
        """Raises OSError where the shared store is away and there is none of this process's own."""
        return await self._ask(
            scope, now, lambda store: store.exchange(scope, caller, cohorts, sketches, now, remember=remember)
        )

    async def credit(self, scope: str, caller: str, cohorts: tuple[str, ...], update: Update, now: float) -> None:
        """To the store that has the rows; without rows, to the one in use. What the shared one cannot take is lost."""
        numbers = (*update.joins, *update.components, *(row.number for row in update.answered))
        own = self._is_away(scope) if max(numbers, default=-1) < 0 else max(numbers) > OWN
        if not own:
            try:
                await self._shared.credit(scope, caller, cohorts, update, now)
            except OSError as error:
                self._gone(scope, error, now)
        elif self._own is not None:
            await self._own.credit(scope, caller, cohorts, update, now)

    async def callers(self, scope: str) -> list[tuple[str, Past]]:
        """Raises OSError where the shared store is away."""
        return await self._in_use(scope).callers(scope)

    async def past(self, scope: str, caller: str) -> Past | None:
        """Raises OSError where the shared store is away."""
        return await self._in_use(scope).past(scope, caller)

    async def forget(self, scope: str, caller: str) -> bool:
        """In both. Raises OSError where the shared store is away and he is not known here."""
        here = False if self._own is None else await self._own.forget(scope, caller)
        try:
            there = await self._shared.forget(scope, caller)
        except OSError:
            if not here or len(self._owed) >= MAX_OWED:
                raise
            self._owed[scope, caller] = None
            return True
        self._owed.pop((scope, caller), None)
        return there or here

    async def take(
        self, scope: str, caller: str, buckets: tuple[Bucket, ...], now: float, *, force: bool = False
    ) -> tuple[float, ...]:  # fmt: skip
        """Raises OSError where the shared store is away and there is none of this process's own."""
        return await self._ask(scope, now, lambda store: store.take(scope, caller, buckets, now, force=force))

    async def once(self, scope: str, caller: str, token: bytes, until: float, now: float) -> bool:
        """Raises OSError where the shared store is away and there is none of this process's own.

        A token that came before the shared store went away is new here, once a process.
        """
        return await self._ask(scope, now, lambda store: store.once(scope, caller, token, until, now))

    async def close(self) -> None:
        """Close both."""
        await self._shared.close()
        if self._own is not None:
            await self._own.close()

    async def _ask(self, scope: str, now: float, call: Callable[[Store], Awaitable[T]]) -> T:
        """Of the shared store where it answers, else of this process's own."""
        if self._tries(scope, now):
            try:
                await self._pay(scope)
                found = await call(self._shared)
            except OSError as error:
                self._gone(scope, error, now)
            else:
                self._back(scope)
                return found
        if self._own is None:
            raise OSError("the store is away")
        return await call(self._own)

    async def _pay(self, scope: str) -> None:
        """Forgive there whom operators have forgiven meanwhile. Raises OSError."""
        for owed in [one for one in self._owed if one[0] == scope]:
            await self._shared.forget(*owed)
            self._owed.pop(owed, None)

    def _in_use(self, scope: str) -> Store:
        return self._own if self._is_away(scope) and self._own is not None else self._shared

    def _part(self, scope: str) -> str:
        return scope if self._apart else ""

    def _is_away(self, scope: str) -> bool:
        return self._part(scope) in self._retry_at

    def _tries(self, scope: str, now: float) -> bool:
        part = self._part(scope)
        if part not in self._retry_at:
            return True
        if 0.0 < self._retry_at[part] - now <= 2 * RETRY_S:  # more: the clock was set back
            return False
        self._retry_at[part] = now + RETRY_S  # nobody else tries meanwhile
        return True

    def _gone(self, scope: str, error: OSError, now: float) -> None:
        before = self.away
        self._retry_at[self._part(scope)] = now + RETRY_S
        if not before:
            self._on_away(True)
        if self._said != str(error):
            self._said = str(error)
            _log.error("shared history: %s", error)

    def _back(self, scope: str) -> None:
        if self._retry_at.pop(self._part(scope), None) is not None and not self.away:
            self._on_away(False)
            self._said = ""
            _log.warning("shared history: the store is back")
