"""What people write first: a pass-through proxy on grpc.aio. `python -m bench.proxy.through PORT UPSTREAM [inspect]`.

inspect: the request is parsed, its tensor is read and checked for NaN; the original bytes are forwarded.
fast: no grpc.aio, but Guard's fast plane with nothing between its two sides: what the plane itself costs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np

from guard.proxy import plane
from guard.proxy.headers import to_upstream
from guard.proxy.local_stream import LocalStream
from guard.proxy.seam import Call, Upstream
from guard.proxy.server import Exchange
from guard.settings import Settings
from guard.wire import open_inference_pb2 as pb

_OPTIONS = [(f"grpc.max_{way}_message_length", 64 * 1024 * 1024) for way in ("receive", "send")]


class Through(grpc.GenericRpcHandler):
    """Every method, bytes in and bytes out."""

    def __init__(self, channel: Any, *, inspect: bool) -> None:
        self._channel, self._inspect, self._calls = channel, inspect, dict[str, Any]()

    def service(self, details: Any) -> Any:
        """A handler for the path."""
        if details.method not in self._calls:
            call = self._channel.unary_unary(details.method)
            self._calls[details.method] = grpc.unary_unary_rpc_method_handler(self._handler(call))
        return self._calls[details.method]

    def _handler(self, call: Any) -> Any:
        async def handle(body: bytes, context: Any) -> bytes:
            if self._inspect and not sound(body):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not finite")
            return bytes(await call(body))

        return handle


def sound(body: bytes) -> bool:
    """Whether the tensor is finite: the check that every inspecting proxy here makes."""
    message = pb.ModelInferRequest.FromString(body)
    return all(np.isfinite(np.frombuffer(raw, "<f4")).all() for raw in message.raw_input_contents)


async def serve(port: int, upstream: str, *, inspect: bool) -> None:
    """Until it is killed."""
    async with grpc.aio.insecure_channel(upstream, options=_OPTIONS) as channel:
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((Through(channel, inspect=inspect),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


class _Pass:
    """A gate that stands open."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def unary(self, call: Call, exchange: Exchange) -> None:
        """Bytes in and bytes out."""
        body = await exchange.receive(60.0)
        metadata = to_upstream(call.metadata)
        await exchange.send(await self._upstream.unary(call.path, body or b"", metadata, call.timeout_s or 30.0))

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> LocalStream:
        """None here."""
        raise NotImplementedError


async def serve_fast(port: int, upstream: str) -> None:
    """Until it is killed."""
    settings = Settings.model_validate({
        "plane": "fast", "listen": {"address": f"127.0.0.1:{port}"}, "upstream": {"address": upstream},
    })  # fmt: skip
    if settings.upstream is not None:
        server, _ = plane.make_server(
            _Pass(plane.make_upstream(settings, settings.upstream)), settings, settings.listen
        )
        await server.start()
    await asyncio.Event().wait()


def main(port: str, upstream: str, *words: str) -> None:
    """As the command line says."""
    if "fast" not in words:
        asyncio.run(serve(int(port), upstream, inspect="inspect" in words))
        return
    factory = plane.new_loop(Settings.model_validate({"plane": "fast", "upstream": {"address": upstream}}))
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve_fast(int(port), upstream))


if __name__ == "__main__":
    main(*sys.argv[1:])
