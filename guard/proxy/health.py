"""grpc.health.v1, Guard's own: what a probe should know of Guard and the models behind it.

Services: the empty name and `inference.GRPCInferenceService` (everything is ready and Guard is not draining), OWN
(Guard is not draining, and one server at least is ready: for a gateway, which one that is away must not take out of
service), and each guarded model's name. `Watch` answers at once and then with each change, looked for every LOOK_S.
"""

import asyncio
from collections.abc import Callable

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from guard.proxy import methods, status
from guard.proxy.local_stream import Outlet
from guard.proxy.runtime import Runtime
from guard.proxy.seam import Reply

LOOK_S = 0.5
MAX_WATCHES = 64
MAX_NAME_BYTES = 1024
_ALL = frozenset({"", methods.SERVICE.strip("/")})
OWN = "guard.v1.GuardService"
_Status = HealthCheckResponse.ServingStatus


class Health:
    """Answers probes from what is known; no upstream is asked for it."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime
        self._watches = 0

    def _status(self, service: str) -> int | None:
        """None: there is no such service."""
        runtime = self._runtime()
        model = runtime.models.get(service)
        if service in _ALL:
            ready = runtime.ready
        elif service == OWN:
            ready = runtime.serving
        elif model is not None:
            ready = model.ready and not runtime.shared.draining
        else:
            return None
        return int(HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING)

    def check(self, body: bytes) -> Reply:
        """Health/Check."""
        service = _service(body)
        if service is None:
            return status.invalid("the message is not a HealthCheckRequest")
        serving = self._status(service)
        return status.service_unknown() if serving is None else Reply(_encode(serving))

    async def watch(self, body: bytes, outlet: Outlet) -> Reply:
        """Health/Watch: goes on until the caller leaves."""
        service = _service(body)
        if service is None:
            return status.invalid("the message is not a HealthCheckRequest")
        if self._watches >= MAX_WATCHES:
            return status.overloaded()
        self._watches += 1
        try:
            await self._watch(service, outlet)
        finally:
            self._watches -= 1
        return Reply()

    async def _watch(self, service: str, outlet: Outlet) -> None:
        told = None
        while not (told is not None and self._runtime().shared.closing):
            serving = self._status(service)
            now = int(HealthCheckResponse.SERVICE_UNKNOWN) if serving is None else serving
            if now != told:
                await outlet.send(_encode(now))
                told = now
            await asyncio.sleep(LOOK_S)


def _service(body: bytes) -> str | None:
    if len(body) > MAX_NAME_BYTES:
        return None
    try:
        return str(HealthCheckRequest.FromString(body).service)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything a hostile caller makes it raise
        return None


def _encode(serving: int) -> bytes:
    encoded: bytes = HealthCheckResponse(status=serving).SerializeToString()
    return encoded
