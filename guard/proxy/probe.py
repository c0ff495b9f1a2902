"""Looks after the upstreams in the background: are they ready, what do they serve, were certificates rotated."""

import asyncio
import logging
import time
from collections.abc import Callable

from guard.proxy import methods
from guard.proxy.models import PROBE_TIMEOUT_S, GuardedModel, Route, ask
from guard.proxy.pipeline import UNLISTED
from guard.proxy.runtime import Runtime
from guard.proxy.status import Code
from guard.wire.open_inference_pb2 import ServerReadyRequest, ServerReadyResponse

TICK_S = 0.5
READY_EVERY_S = 5.0
"""How often what is ready is asked again; what is not ready, or has a new connection, is asked at each tick."""
_log = logging.getLogger(__name__)


class Prober:
    """One pass is `look`; `run` looks for ever."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime
        self._asked: dict[int, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - it must go on looking
                _log.exception("looking after the upstreams failed")
            await asyncio.sleep(TICK_S)

    async def look(self) -> None:
        """Ask what is due."""
        runtime, now = self._runtime(), time.monotonic()
        runtime.metrics.store_entries.set(runtime.shared.store.entries)
        routes = [
            route for route in set(runtime.routes.values()) if self._is_due(route, now, runtime.server_ready.get(route))
        ]
        models = [m for m in runtime.models.values() if not m.is_current or self._is_due(m, now, m.ready)]
        await asyncio.gather(*(self._look_at(runtime, route) for route in routes), *(model.probe() for model in models))
        for thing in (*routes, *models):
            self._asked[id(thing)] = now
        known = {id(thing) for thing in (*runtime.routes.values(), *runtime.models.values())}
        self._asked = {key: at for key, at in self._asked.items() if key in known}

    def _is_due(self, thing: Route | GuardedModel, now: float, ready: bool | None) -> bool:
        return not ready or now - self._asked.get(id(thing), -READY_EVERY_S) >= READY_EVERY_S

    async def _look_at(self, runtime: Runtime, route: Route) -> None:
        refresh = getattr(route.upstream, "refresh", None)  # an embedded model has nothing to refresh
        if refresh is not None:
            refresh()
        body = ServerReadyRequest().SerializeToString()
        reply = await ask(route, runtime.metrics, UNLISTED, "health", methods.SERVER_READY, body, (), PROBE_TIMEOUT_S)
        ready = reply.code == Code.UNIMPLEMENTED  # answers, but not this question
        if reply.code == Code.OK:
            try:
                ready = ServerReadyResponse.FromString(reply.body).ready
            except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything a hostile upstream makes it raise
                ready = False
        if ready != runtime.server_ready.get(route):
            _log.log(
                logging.INFO if ready else logging.WARNING,
                "upstream %s: %r",
                route.upstream.name,
                "ready" if ready else reply.details or "not ready",
            )
        runtime.server_ready[route] = ready
