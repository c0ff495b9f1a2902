"""A server made of frames: it answers inferences as a test wants it, and says UNIMPLEMENTED to everything else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from tests.planes import frames
from tests.planes.at import TALK
from tests.planes.frames import Stream, Wire
from tests.proxy.world import INFER, STREAM

Answer = Callable[[Wire, int], None]
GOOD = [(b":status", b"200"), (b"content-type", b"application/grpc")]


def trailers(number: int, status: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    return frames.headers(number, [(b"grpc-status", status), *extra], end=True)


def good(wire: Wire, number: int) -> None:
    """An answer by the rules; the body is `ok`."""
    wire.send(frames.headers(number, GOOD), frames.data(number, frames.message(b"ok")), trailers(number, b"0"))


def told(*raw: bytes) -> Answer:
    """Sends these frames, whatever was asked; a stream's number is filled in where they say 1."""

    def answer(wire: Wire, number: int) -> None:
        for one in raw:
            own = one[5:9] == b"\0\0\0\1"
            wire.send(one[:5] + number.to_bytes(4, "big") + one[9:] if own else one)

    return answer


@dataclass
class Odd:
    """The server. answer: what ModelInfer gets; begun: what a connection gets first."""

    address: str = ""
    answer: Answer = good
    begun: bytes = frames.settings()
    wires: list[Wire] = field(default_factory=list)
    asked: int = 0
    last: tuple[Wire, int, Stream] | None = None

    def __call__(self, wire: Wire, number: int) -> None:
        stream = wire.stream(number)
        path = dict(stream.blocks[0])[b":path"].decode()
        if path in {INFER, STREAM, TALK}:
            self.asked += 1
            self.last = wire, number, stream
            self.answer(wire, number)
        else:
            wire.send(frames.headers(number, [*GOOD, (b"grpc-status", b"12")], end=True))


@contextlib.asynccontextmanager
async def odd(answer: Answer = good, begun: bytes = frames.settings(), **values: bool) -> AsyncIterator[Odd]:
    made = Odd(answer=answer, begun=begun)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer, is_server=True, answer=made, **values)
        wire.send(made.begun)
        made.wires.append(wire)
        await wire.closed.wait()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for wire in made.wires:
            await wire.close()
