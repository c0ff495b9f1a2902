"""Which planes there are, and calls that keep everything that a caller can see."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

from guard.proxy.fast import library
from guard.proxy.writing import write_all
from tests.proxy.world import INFER, STREAM, each

PLANES = ("grpcio", "fast")
TALK = "/other.Service/Talk"
"""A service that no table knows: let through in full it is relayed as a stream, unread."""
PASSED = "/inference.GRPCInferenceService/ServerMetadata"
"""A method whose bytes nobody reads."""
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def here(plane: str) -> bool:
    """Whether it can be used here: where `fast` cannot, Guard takes grpcio, and a test would not see that."""
    return plane == "grpcio" or library.unusable is None


def chosen(plane: str) -> dict[str, Any]:
    """The settings that choose it."""
    return {"plane": plane}


@dataclass(frozen=True)
class Told:
    """How a call ended, with all its metadata, repeated keys included."""

    code: grpc.StatusCode
    details: str
    bodies: list[bytes]
    initial: tuple[tuple[str, str | bytes], ...]
    trailing: tuple[tuple[str, str | bytes], ...]

    @property
    def body(self) -> bytes:
        assert self.code is grpc.StatusCode.OK, (self.code, self.details)
        (body,) = self.bodies
        return body

    @property
    def end(self) -> tuple[str, str]:
        return self.code.name, self.details


async def told(call: Any) -> Told:
    """A call read to its end."""
    bodies: list[bytes] = []
    with contextlib.suppress(aio.AioRpcError):
        if hasattr(call, "read"):
            while (body := await call.read()) is not aio.EOF:
                bodies.append(body)
        else:
            bodies.append(await call)
    return Told(
        await call.code(),
        await call.details() or "",
        bodies,
        tuple((key, value) for key, value in await call.initial_metadata() or ()),
        tuple((key, value) for key, value in await call.trailing_metadata() or ()),
    )


async def ask(channel: aio.Channel, body: bytes, path: str = INFER, **options: Any) -> Told:
    """One unary call."""
    options.setdefault("timeout", 10)
    method: Any = channel.unary_unary(path)
    return await told(method(body, **options))


async def talk(channel: aio.Channel, *bodies: bytes, path: str = STREAM, **options: Any) -> Told:
    """One stream: everything said, then everything heard."""
    options.setdefault("timeout", 10)
    method: Any = channel.stream_stream(path)
    call = method(**options)
    await write_all(call, each(bodies))
    return await told(call)


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


def names(metadata: Any, *keys: str) -> list[tuple[str, Any]]:
    """The pairs with these keys, in order."""
    return [(key, value) for key, value in metadata if key in keys]
