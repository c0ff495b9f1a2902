"""The hop to a server that is away, hangs, dies, comes back, ends connections, or sets narrow limits."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from tests.planes import frames, odd
from tests.planes.at import PASSED, TALK, ask, talk, until
from tests.planes.frames import MAX_STREAMS, Wire
from tests.proxy import certs
from tests.proxy.test_upstream import tls_server
from tests.proxy.world import INFER, STREAM, request, serving, start_server
from tests.servers.process import free_port

Behind = Callable[..., Any]
AWAY = ("UNAVAILABLE", "upstream unavailable")


async def answered(guarded: Any, within_s: float = 5.0) -> float:
    """Seconds until calls are answered again; until then they are told that the server is away."""
    started = time.monotonic()
    while (reply := await ask(guarded.channel, request())).code is not grpc.StatusCode.OK:
        assert reply.end == AWAY
        assert time.monotonic() - started < within_s
        await asyncio.sleep(0.05)
    return time.monotonic() - started


@pytest.mark.parametrize("path", [INFER, PASSED, STREAM, TALK])
async def test_a_server_that_refuses_connections(guarding: Any, path: str) -> None:
    async with guarding(f"127.0.0.1:{free_port()}", methods={"allow": [TALK]}) as guarded:
        started = time.monotonic()
        call = talk if path in {STREAM, TALK} else ask
        for _ in range(3):
            assert (await call(guarded.channel, request(), path=path)).end == AWAY
        assert time.monotonic() - started < 3


@contextlib.asynccontextmanager
async def hole() -> AsyncIterator[str]:
    """An address whose connections are never accepted: the backlog is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    others = []
    for _ in range(4):
        other = socket.socket()
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            other.connect(listener.getsockname())
        others.append(other)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for one in (listener, *others):
            one.close()


async def test_a_server_that_swallows_everything(guarding: Any) -> None:
    """No answer to a SYN: the caller's deadline holds, and so does Guard's own."""
    async with hole() as address, guarding(address, timeout_s=1.0) as guarded:
        started = time.monotonic()
        replies = await asyncio.gather(
            ask(guarded.channel, request(), timeout=0.3), ask(guarded.channel, request(), timeout=None)
        )
        assert 0.3 <= time.monotonic() - started < 2.5
        assert {reply.code.name for reply in replies} <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}


async def test_a_server_that_accepts_and_says_nothing(guarding: Any) -> None:
    held = []
    server = await asyncio.start_server(lambda *connection: held.append(connection), "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with guarding(address, timeout_s=0.5) as guarded:
        started = time.monotonic()
        reply = await ask(guarded.channel, request(), timeout=None)
        assert reply.code.name in {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        assert time.monotonic() - started < 2
    server.close()
    for _, writer in held:
        writer.close()


async def test_a_server_that_comes_back_is_found(guarding: Any) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    async with guarding(address) as guarded:
        assert (await ask(guarded.channel, request())).end == AWAY
        for _ in range(2):
            server = await start_server(address)
            await answered(guarded)
            await server.server.stop(None)
            assert (await ask(guarded.channel, request())).end == AWAY


@pytest.mark.parametrize("path", [INFER, STREAM, TALK])
async def test_a_server_that_dies_in_the_middle_of_a_call(guarding: Any, path: str) -> None:
    async with odd.odd(lambda _, __: None) as server, guarding(server.address, methods={"allow": [TALK]}) as guarded:
        server.answer = lambda wire, _: wire.writer.transport.abort()
        call = ask if path == INFER else talk
        assert (await call(guarded.channel, request(), path=path)).end == AWAY
        server.answer = odd.good
        await answered(guarded)


async def test_a_server_that_dies_in_the_middle_of_an_answer(guarding: Any) -> None:
    def half(wire: Wire, number: int) -> None:
        wire.send(frames.headers(number, odd.GOOD), frames.data(number, b"\0\0\0\0\x09half"))
        asyncio.get_running_loop().call_later(0.05, wire.writer.transport.abort)

    async with odd.odd(half) as server, guarding(server.address) as guarded:
        assert (await ask(guarded.channel, request())).code.name in {"UNAVAILABLE", "INTERNAL"}
        server.answer = odd.good
        await answered(guarded)


async def test_calls_in_flight_survive_a_goaway(guarding: Any) -> None:
    """GOAWAY that counts the call in: it is answered on the old connection, the next one on a new one."""
    held: list[tuple[Wire, int]] = []

    def hold(wire: Wire, number: int) -> None:
        held.append((wire, number))
        wire.send(frames.goaway(number))

    async with odd.odd(hold) as server, guarding(server.address) as guarded:
        first = asyncio.create_task(ask(guarded.channel, request()))
        await until(lambda: held)
        server.answer = odd.good
        await asyncio.sleep(0.05)
        await answered(guarded)
        odd.good(*held[0])
        assert (await first).body == b"ok"
        assert len(server.wires) >= 2


async def test_a_call_that_a_goaway_leaves_out_is_asked_again(guarding: Any) -> None:
    """The server says that it has not seen it: on a new connection it is safe."""

    def leave_out(wire: Wire, number: int) -> None:
        server.answer = odd.good
        wire.send(frames.goaway(number - 2 if number > 1 else 0))

    async with odd.odd() as server, guarding(server.address) as guarded:
        assert (await ask(guarded.channel, request())).body == b"ok"
        server.answer = leave_out
        assert (await ask(guarded.channel, request())).body == b"ok"
        assert server.asked == 3


async def test_a_server_that_refuses_a_stream_is_asked_again_or_told_of(guarding: Any) -> None:
    """REFUSED_STREAM: nothing was done for it (RFC 9113, 8.7)."""

    def refuse(wire: Wire, number: int) -> None:
        server.answer = odd.good
        wire.send(frames.rst(number, frames.REFUSED_STREAM))

    async with odd.odd(refuse) as server, guarding(server.address) as guarded:
        reply = await ask(guarded.channel, request())
        assert reply.end == AWAY or reply.body == b"ok"
        await answered(guarded)


async def test_a_server_that_stops_with_grace_loses_no_call(guarding: Any) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.3)
        return b"done"

    server = await start_server()
    server.infer = infer
    async with guarding(server.address) as guarded:
        calls = [asyncio.create_task(ask(guarded.channel, request())) for _ in range(20)]
        await until(lambda: len(server.calls()) == 20)
        await server.server.stop(5)
        assert [reply.body for reply in await asyncio.gather(*calls)] == [b"done"] * 20


async def test_servers_that_change_places_under_load(guarding: Any) -> None:
    """The server is stopped with grace and started anew, twice: calls are answered, or told that it was away."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    server = await start_server(address)
    async with guarding(address) as guarded:
        going, ends = True, []

        async def caller() -> None:
            while going:
                reply = await ask(guarded.channel, request())
                ends.append(reply.end)
                await asyncio.sleep(0.005 if reply.code is grpc.StatusCode.OK else 0.05)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        for _ in range(2):
            await asyncio.sleep(0.2)
            await server.server.stop(1)
            server = await start_server(address)
            await answered(guarded)
        going = False
        await asyncio.gather(*callers)
        stopped = ("CANCELLED", "CANCELLED")  # grpc.aio's servers say so to calls that came as they stopped
        assert set(ends) <= {("OK", ""), AWAY, stopped}
        assert ends.count(("OK", "")) > 50
    await server.server.stop(None)


async def test_a_server_that_takes_one_call_at_a_time(guarding: Any) -> None:
    """SETTINGS_MAX_CONCURRENT_STREAMS = 1: the others wait for their turn."""
    most = 0

    def answer(wire: Wire, number: int) -> None:
        nonlocal most
        most = max(most, sum(s.ended and n not in done for n, s in wire.streams.items()))

        def now() -> None:
            done.add(number)
            odd.good(wire, number)

        asyncio.get_running_loop().call_later(0.02, now)

    done: set[int] = set()
    async with odd.odd(answer, frames.settings((MAX_STREAMS, 1))) as server, guarding(server.address) as guarded:
        await answered(guarded)
        replies = await asyncio.gather(*(ask(guarded.channel, request()) for _ in range(12)))
        assert [reply.body for reply in replies] == [b"ok"] * 12
        probes = 1  # UNIMPLEMENTED was said at once, and is not in `done`
        assert most <= 1 + probes + len(server.wires) * 8


@pytest.mark.parametrize(
    "pairs",
    [
        ((frames.INITIAL_WINDOW, 1),),
        ((frames.INITIAL_WINDOW, 100), (frames.MAX_FRAME, 16384)),
        ((frames.TABLE_SIZE, 0),),
        ((frames.TABLE_SIZE, 2**31), (frames.MAX_FRAME, 2**24 - 1), (frames.INITIAL_WINDOW, 2**31 - 1)),
        ((0xF00D, 7), (frames.ENABLE_PUSH, 0), (frames.MAX_HEADERS, 2**20)),
    ],
)
async def test_settings_of_the_server_are_kept(guarding: Any, pairs: tuple[tuple[int, int], ...]) -> None:
    async with odd.odd(begun=frames.settings(*pairs)) as server, guarding(server.address) as guarded:
        filling = 200 if pairs[0] == (frames.INITIAL_WINDOW, 1) else 8000
        body = request() + b"\xfa\x3e" + bytes([filling & 127 | 128, filling >> 7]) + bytes(filling)
        for _ in range(2):
            assert (await ask(guarded.channel, body, timeout=20)).body == b"ok"
        sent = [bytes(s.body[5:]) for w in server.wires for s in w.streams.values() if len(s.body) > 100]
        assert sent == [body] * 2
        frame_s = dict(pairs).get(frames.MAX_FRAME, 16384)
        assert max(size for w in server.wires for _, _, _, size in w.frames) <= frame_s
        if pairs[0] == (frames.INITIAL_WINDOW, 1):
            assert max(size for w in server.wires for kind, _, _, size in w.frames if kind == frames.DATA) == 1


async def test_a_window_that_shrinks_below_zero_under_a_call(guarding: Any) -> None:
    """SETTINGS_INITIAL_WINDOW_SIZE may take back what was given (RFC 9113, 6.9.2)."""
    async with odd.odd(generous=False) as server, guarding(server.address) as guarded:
        await answered(guarded)
        (made,) = server.wires
        call = asyncio.create_task(ask(guarded.channel, request() + b"\xfa\x3e\xc0\x9a\x0c" + bytes(200_000)))
        await made.until(lambda: sum(len(s.body) for s in made.streams.values()) > 60_000)
        number = max(made.streams)
        made.send(frames.settings((frames.INITIAL_WINDOW, 10)))
        await asyncio.sleep(0.1)
        made.send(frames.window(0, 10_000_000), frames.window(number, 60_000))
        await asyncio.sleep(0.2)
        assert not call.done()
        assert len(made.stream(number).body) <= 65_535 + 60_000
        made.send(frames.window(number, 10_000_000))
        assert (await call).body == b"ok"


async def test_guard_gives_back_the_window_of_a_large_answer(guarding: Any) -> None:
    """5 MB from a server that sends what it may and not a byte more."""

    async def send(wire: Wire, number: int) -> None:
        left, used = frames.message(bytes(5_000_000)), 0
        wire.send(frames.headers(number, odd.GOOD))
        while left:
            stream = wire.settings.get(frames.INITIAL_WINDOW, 65_535) + wire.windows.get(number, 0)
            room = min(65_535 + wire.windows.get(0, 0), stream) - used
            if room > 0:
                size = min(room, 16_384)
                wire.send(frames.data(number, left[:size]))
                used, left = used + size, left[size:]
            else:
                seen = sum(wire.windows.values())
                await wire.until(lambda: sum(wire.windows.values()) != seen)  # noqa: B023 - awaited here
        wire.send(odd.trailers(number, b"0"))

    sending = []
    answer = lambda *to: sending.append(asyncio.create_task(send(*to)))
    async with odd.odd(answer) as server, guarding(server.address) as guarded:
        assert len((await ask(guarded.channel, request())).body) == 5_000_000
        await asyncio.gather(*sending)


HEAD = frames.headers(1, odd.GOOD)
ENDS: dict[str, tuple[bytes, ...]] = {
    "a deadline": (),
    "a deadline after the head": (HEAD,),
    "a message that is too large": (HEAD, frames.data(1, b"\0\xff\xff\xff\xffx")),
    "a message that is none": (HEAD, frames.data(1, frames.message(b"x", 9))),
    "another content type": (frames.headers(1, [(b":status", b"200"), (b"content-type", b"text/html")]),),
    "an unknown encoding": (frames.headers(1, [*odd.GOOD, (b"grpc-encoding", b"br")]),),
    "another HTTP status": (frames.headers(1, [(b":status", b"503")]),),
}
GRPCIO_WAITS = {"an unknown encoding", "another HTTP status", "another content type", "a message that is none"}


@pytest.mark.parametrize("path", [INFER, TALK])
@pytest.mark.parametrize("name", ENDS)
async def test_a_call_that_is_over_here_is_over_there(guarding: Any, plane: str, path: str, name: str) -> None:
    """Whatever ended it, a server that does not end its stream is told by a reset; its connection stays."""
    async with odd.odd(odd.told(*ENDS[name])) as server, guarding(server.address, methods={"allow": [TALK]}) as guarded:
        call = ask if path == INFER else talk
        waits = plane == "grpcio" and name in GRPCIO_WAITS
        reply = await call(guarded.channel, request(), path=path, timeout=0.5 if "deadline" in name or waits else 5)
        assert reply.code is not grpc.StatusCode.OK
        wire, _, stream = server.last
        await wire.until(lambda: stream.code is not None or wire.closed.is_set(), 3)
        assert stream.code is not None or plane == "grpcio"
        assert not wire.closed.is_set() or plane == "grpcio"
        await until(lambda: guarded.app.runtime.calls == 0)


async def test_a_server_behind_a_unix_socket(guarding: Any, tmp_path: Any) -> None:
    server = await start_server(f"unix:{tmp_path}/s")
    async with guarding(f"unix:{tmp_path}/s", listen={"address": f"unix:{tmp_path}/g"}) as guarded:
        assert (await ask(guarded.channel, request())).body
        assert guarded.app.address == f"unix:{tmp_path}/g"
    await server.server.stop(None)


async def test_a_server_by_name(guarding: Any) -> None:
    async with serving() as server:
        port = server.address.rpartition(":")[2]
        async with guarding(f"localhost:{port}") as guarded:
            assert (await ask(guarded.channel, request())).body


async def test_a_name_that_nobody_has(guarding: Any) -> None:
    async with guarding("no-such-host.invalid:1", timeout_s=2.0) as guarded:
        reply = await ask(guarded.channel, request())
        assert reply.end == AWAY or reply.code.name == "DEADLINE_EXCEEDED"


# --- TLS towards the server


@pytest.fixture
def ca() -> certs.Authority:
    return certs.Authority()


def files(ca: certs.Authority, tmp_path: Any, trusted: certs.Authority, name: str = "guard") -> dict[str, str]:
    cert, key = ca.leaf(name).write(tmp_path, "guard")
    (tmp_path / "ca.crt").write_bytes(trusted.pem)
    return {"ca_file": str(tmp_path / "ca.crt"), "cert_file": str(cert), "key_file": str(key)}


async def test_guard_shows_its_certificate_and_a_rotated_one(
    ca: certs.Authority, guarding: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guard.proxy import probe

    monkeypatch.setattr(probe, "READY_EVERY_S", 0.1)
    tls = files(ca, tmp_path, ca, "first")
    async with tls_server(ca) as (server, seen), guarding(server.address, upstream={"tls": tls}) as guarded:
        assert (await ask(guarded.channel, request())).body
        ca.leaf("second").write(tmp_path, "guard")
        async with asyncio.timeout(10):
            while seen[-1] != "second":
                assert (await ask(guarded.channel, request())).body
                await asyncio.sleep(0.05)
        assert seen[0] == "first"


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_server_that_is_another_is_away(ca: certs.Authority, guarding: Any, tmp_path: Any, wrong: str) -> None:
    stranger = certs.Authority("stranger")
    tls = files(ca, tmp_path, stranger if wrong == "authority" else ca)
    if wrong == "name":
        tls["server_name"] = "another.internal"
    async with tls_server(ca) as (server, seen), guarding(server.address, upstream={"tls": tls}) as guarded:
        assert (await ask(guarded.channel, request())).end == AWAY
        assert not seen


@pytest.mark.parametrize("named", [True, False])
async def test_a_server_under_another_name(ca: certs.Authority, guarding: Any, tmp_path: Any, named: bool) -> None:
    """Its certificate says `localhost`; it is asked for by its address."""
    tls = files(ca, tmp_path, ca) | ({"server_name": "localhost"} if named else {})
    async with tls_server(ca) as (server, _):
        address = "127.0.0.1:" + server.address.rpartition(":")[2]
        async with guarding(address, upstream={"tls": tls}) as guarded:
            assert (await ask(guarded.channel, request())).code.name == ("OK" if named else "UNAVAILABLE")
