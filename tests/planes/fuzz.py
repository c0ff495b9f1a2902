"""Frames at random, towards the listener and from the server: `python -m tests.planes.fuzz --seconds 60 --seed 1`.

A sequence is a conversation by the rules (calls, streams, settings, pings, windows) that a few mutations went over:
frames lost, doubled, swapped, on other streams, of other kinds, with lengths that lie; bits flipped; the end cut off.
Sequence N of a seed is always the same: `--first N --count 1` repeats it alone. After every hundred an honest call must
be answered, and in the end the process lives and its log holds no exception. `--towards caller`: a server's answers.
"""

import argparse
import asyncio
import contextlib
import gzip
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from tests.planes import frames, hpack, odd, served
from tests.planes.at import PASSED, PLANES, TALK, here
from tests.planes.frames import PREFACE, frame
from tests.proxy.world import INFER, STREAM, request

WORKERS = 8
NUMBERS = (0, 1, 2, 7, 255, 16_383, 16_384, 16_385, 65_535, 65_536, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
BODIES = (b"", b"\xff", request(), request(request_id="x" * 300), b"\x0a\x01m", bytes(70_000))
PATHS = [path.encode() for path in (INFER, STREAM, TALK, PASSED, "/grpc.health.v1.Health/Check", "/a/b", "", "/")]
PATHS += [b"/grpc.health.v1.Health/Watch", b"/\xff\xfe", INFER.encode() + b"?"]


@dataclass(frozen=True)
class Frame:
    """One frame; length: what it claims where it lies."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    length: int | None = None

    @property
    def raw(self) -> bytes:
        length = None if self.length is None else self.length & 0xFFFFFF
        return frame(self.kind & 255, self.flags & 255, self.stream & 0xFFFFFFFF, self.payload, length)


class Talk:
    """Conversations of one sequence."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)

    # --- by the rules

    def caller(self) -> list[Frame]:
        made = [Frame(frames.SETTINGS, 0, 0, self._settings())]
        for number in range(1, 2 * self.random.randint(1, 6), 2):
            made += self._call(number)
        return self._mixed(made)

    def server(self, number: int) -> list[Frame]:
        """What a server says to the call on this stream."""
        chance = self.random.random
        status = [(b":status", self.random.choice((b"200", b"200", b"200", b"503", b"100", b"", b"9")))]
        kind = (b"content-type", self.random.choice((b"application/grpc", b"text/html", b"")))
        end = [(b"grpc-status", self.random.choice((b"0", b"0", b"5", b"99", b"", b"-1", b"x")))]
        end += [(b"grpc-message", self.random.choice((b"", b"%", b"%ff%fe", b"a" * 9000)))] if chance() < 0.5 else []
        if chance() < 0.2:
            return self._mixed(self._head(number, [*status, kind, *end], end=True))
        made = self._head(number, [*status, kind, *self._fields()])
        made += self._data(number, self._messages(), end=False)
        return self._mixed(made + self._head(number, end, end=True))

    def _call(self, number: int) -> list[Frame]:
        pairs = frames.head(self.random.choice(PATHS), *self._fields())
        if self.random.random() < 0.1:
            self.random.shuffle(pairs)
        if self.random.random() < 0.1:
            return self._head(number, pairs, end=True)
        return self._head(number, pairs) + self._data(number, self._messages(), end=self.random.random() < 0.8)

    def _fields(self) -> hpack.Pairs:
        known = (
            (b"grpc-timeout", self.random.choice((b"1S", b"50m", b"0n", b"99999999H", b"x", b"-1S", b""))),
            (b"grpc-encoding", self.random.choice((b"gzip", b"deflate", b"identity", b"br"))),
            (b"grpc-accept-encoding", b"gzip,deflate"),
            (b"x-bin", self.random.choice((b"AAH/", b"*", b"A", b"AA==,AA=="))),
            (b"x-key", self.random.choice((b"v", b"\xff", b"\0", b" v ", b"v" * 9000))),
            (b"content-length", self.random.choice((b"0", b"5", b"99999999999999999999", b"x"))),
            (self.random.choice((b"", b"X", b":path", b":status", b"connection", b"te", b"host")), b"x"),
        )
        return [pair for pair in known if self.random.random() < 0.2]

    def _messages(self) -> bytes:
        made = b""
        for _ in range(self.random.choice((0, 1, 1, 1, 2, 5))):
            body, flag = self.random.choice(BODIES), 0
            if self.random.random() < 0.2:
                body, flag = gzip.compress(body), self.random.choice((1, 1, 2, 255))
            made += frames.message(body, flag)
        return made

    def _head(self, number: int, pairs: hpack.Pairs, *, end: bool = False) -> list[Frame]:
        how = self.random.choice((hpack.literal, hpack.literal, hpack.stored))
        block, flags = b"".join(how(*pair) for pair in pairs), frames.END_STREAM if end else 0
        if self.random.random() < 0.2:
            block = hpack.integer(self.random.choice(NUMBERS), 5, 0x20) + block
        if self.random.random() < 0.2:
            at = self.random.randint(0, len(block))
            first, last = block[:at], block[at:]
            return [Frame(frames.HEADERS, flags, number, first), Frame(frames.CONTINUATION, 4, number, last)]
        if self.random.random() < 0.2:
            flags, block = flags | frames.PADDED, b"\3" + block + bytes(3)
        return [Frame(frames.HEADERS, flags | frames.END_HEADERS, number, block)]

    def _data(self, number: int, raw: bytes, *, end: bool) -> list[Frame]:
        size = self.random.choice((1_000, 16_384, 16_384))
        if len(raw) < 500 and self.random.random() < 0.2:
            size = self.random.randint(1, 9)
        made = [Frame(frames.DATA, 0, number, raw[at : at + size]) for at in range(0, max(1, len(raw)), size)]
        if end:
            made[-1] = replace(made[-1], flags=frames.END_STREAM)
        return made

    def _settings(self) -> bytes:
        pairs = [
            (self.random.randint(0, 9), self.random.choice(NUMBERS)) for _ in range(self.random.choice((0, 0, 1, 3)))
        ]
        return b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)

    def _control(self) -> Frame:
        number, value = self.random.choice((0, 0, 1, 1, 3, 4, 99)), self.random.choice(NUMBERS).to_bytes(4, "big")
        return self.random.choice(
            (
                Frame(frames.PING, self.random.choice((0, 1)), 0, bytes(8)),
                Frame(frames.SETTINGS, 0, 0, self._settings()),
                Frame(frames.SETTINGS, frames.ACK, 0, b""),
                Frame(frames.WINDOW, 0, number, value),
                Frame(frames.RST, 0, number, value),
                Frame(frames.PRIORITY, 0, number, value + b"\x10"),
                Frame(frames.GOAWAY, 0, 0, value + bytes(4) + b"bye"),
                Frame(frames.PUSH, 4, number, value),
                Frame(self.random.randint(10, 255), self.random.randint(0, 255), number, value),
            )
        )

    def _mixed(self, made: list[Frame]) -> list[Frame]:
        """With control frames between, and then a few mutations."""
        for _ in range(self.random.choice((0, 0, 1, 2, 5))):
            made.insert(self.random.randint(0, len(made)), self._control())
        for _ in range(self.random.choice((0, 1, 1, 2, 3, 8))):
            self._mutate(made)
        return made

    # --- and not

    def _mutate(self, made: list[Frame]) -> None:
        if not made:
            return
        at, other = self.random.randrange(len(made)), self.random.randrange(len(made))
        match self.random.randrange(12):
            case 0:
                del made[at]
            case 1:
                made.insert(other, made[at])
            case 2:
                made[at], made[other] = made[other], made[at]
            case 3:
                made[at:at] = [made[at]] * self.random.choice((2, 20, 200))
            case _:
                made[at] = self._changed(made[at])

    def _changed(self, one: Frame) -> Frame:
        chance = self.random
        match chance.randrange(7):
            case 0:
                return replace(one, kind=chance.randint(0, 10))
            case 1:
                return replace(one, flags=one.flags ^ 1 << chance.randrange(8))
            case 2:
                return replace(one, stream=chance.choice((0, 1, 2, 3, 5, 7, 99, 2**31 - 1, 2**31 + 1)))
            case 3:
                return replace(one, length=chance.choice((*NUMBERS, len(one.payload) + 1)))
            case 4:
                payload = one.payload[: chance.randint(0, len(one.payload))]
            case 5:
                payload = chance.randbytes(chance.randint(0, 40))
            case _:
                payload = self._flipped(one.payload)
        return replace(one, payload=payload)

    def _flipped(self, payload: bytes) -> bytes:
        raw = bytearray(payload)
        for _ in range(self.random.randint(1, 4)):
            if raw:
                raw[self.random.randrange(min(len(raw), 300))] ^= 1 << self.random.randrange(8)
        return bytes(raw)

    def bytes(self, made: list[Frame], first: bytes = b"") -> bytes:
        raw = first + b"".join(one.raw for one in made)
        if self.random.random() < 0.1:
            raw = self._flipped(raw)
        if self.random.random() < 0.1:
            raw = raw[: self.random.randint(0, len(raw))]
        return raw


@contextlib.asynccontextmanager
async def workers(one: Callable[[int], object], first: int, until: Callable[[int], bool]) -> AsyncIterator[list[int]]:
    """Sequences from `first` on, several at a time; the list holds those that are over."""
    done: list[int] = []
    numbers = iter(range(first, sys.maxsize))

    async def work() -> None:
        for number in numbers:
            if until(number):
                return
            await one(number)  # type: ignore[misc]
            done.append(number)

    tasks = [asyncio.create_task(work()) for _ in range(WORKERS)]
    try:
        yield done
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _exchange(address: str, talk: Talk) -> None:
    """One connection: send in one piece or several, read a little, go."""
    raw = talk.bytes(talk.caller(), PREFACE if talk.random.random() < 0.98 else b"")
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await frames.connected(address)
        try:
            for _ in range(talk.random.choice((1, 1, 1, 3))):
                cut = talk.random.randint(0, len(raw))
                writer.write(raw[:cut])
                raw = raw[cut:]
                await asyncio.sleep(0)
            writer.write(raw)
            if talk.random.random() < 0.2:
                writer.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(talk.random.choice((0, 0.005, 0.02, 0.05))):
                    while await reader.read(65_536):
                        pass
        finally:
            if talk.random.random() < 0.5:
                writer.transport.abort()
            writer.close()


async def at_listener(far: served.Far, seed: int, first: int, until: Callable[[int], bool]) -> int:
    """Sequences towards the listener; how many. Raises AssertionError that names the last ones."""
    checked = first

    async with workers(lambda number: _exchange(far.address, Talk(f"{seed}:{number}")), first, until) as done:
        while not until(checked):
            await asyncio.sleep(0.2)
            if len(done) + first < checked + 100:
                continue
            where = f"seed {seed}, sequences {checked} to {first + len(done)}"
            await _honest(far, where)
            checked = first + len(done)
    where = f"seed {seed}, sequences {checked} to {first + len(done)}"
    await _honest(far, where)
    return len(done)


async def _honest(far: served.Far, where: str) -> None:
    try:
        await asyncio.to_thread(far.honest)
    except Exception as error:
        raise AssertionError(f"{where}: no answer: {error}") from error
    assert far.alive, where
    assert far.complaints() == [], where


async def at_upstream(address: str, server: odd.Odd, seed: int, first: int, until: Callable[[int], bool]) -> int:
    """Mutated answers to calls through Guard at `address`, whose upstream is `server`; how many."""
    asked = 0

    async def one(number: int) -> None:
        nonlocal asked
        async with frames.wire(address) as caller:
            path = INFER if number % 3 else TALK
            caller.send(frames.call(1, path.encode(), request(), (b"grpc-timeout", b"1S")))
            stream = await caller.ended(1, timeout_s=4)
            assert stream.done.is_set(), f"seed {seed}, about answer {asked}: the connection ended"

    def answer(wire: frames.Wire, number: int) -> None:
        nonlocal asked
        asked += 1
        talk = Talk(f"{seed}:{first + asked}")
        wire.send(talk.bytes(talk.server(number)))
        if talk.random.random() < 0.1:
            wire.writer.close()

    server.answer = answer
    async with workers(one, first, until) as done:
        pass
    server.answer = odd.good
    for wire in server.wires:  # whatever was agreed upon: no streams, no window
        wire.writer.transport.abort()
    return len(done)


def _until(seconds: float | None, last: int | None) -> Callable[[int], bool]:
    end = time.monotonic() + (seconds or 1e9)
    return lambda number: time.monotonic() > end or (last is not None and number >= last)


async def main(args: argparse.Namespace, directory: Path) -> None:
    last = None if args.count is None else args.first + args.count
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(odd.odd())
        at_caller = args.towards == "caller"
        address = server.address if at_caller else stack.enter_context(served.upstream(directory))
        far = stack.enter_context(served.far(args.plane, directory, address, answered=not at_caller))
        began, until = far.rss, _until(args.seconds, last)
        if at_caller:
            done = await at_upstream(far.address, server, args.seed, args.first, until)
        else:
            done = await at_listener(far, args.seed, args.first, until)
        await _honest(far, f"seed {args.seed}, the end")
        grown = (far.rss - began) // 1024
        sys.stdout.write(f"{args.plane}: {done} sequences towards the {args.towards}, memory grew by {grown} KiB\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plane", choices=[plane for plane in PLANES if here(plane)], default=PLANES[-1])
    parser.add_argument("--towards", choices=["listener", "caller"], default="listener")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int)
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(parser.parse_args(), Path(name)))
