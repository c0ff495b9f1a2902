"""How calls end: every status with its text, from servers that keep HTTP/2's rules and from servers that do not."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.planes import frames, odd
from tests.planes.at import PASSED, TALK, ask, names, talk
from tests.planes.frames import call, wire
from tests.planes.odd import GOOD, told, trailers
from tests.proxy.world import INFER, STREAM, request

Behind = Callable[..., Any]
ERRORS = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
TEXTS = ["", "plain", '100 % übel: 猫\n\t"x"', "%41%zz%", "long " * 200]
AWAY = ("UNAVAILABLE", "upstream unavailable")


@pytest.mark.parametrize("code", ERRORS)
async def test_every_code_travels_with_its_text(behind: Behind, code: grpc.StatusCode) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.abort(code, text, (("x-why", "y"), ("grpc-status-details-bin", b"\x08\x05d\xff")))

    async with behind() as (server, guarded):
        server.infer = infer
        for text in TEXTS:
            reply = await ask(guarded.channel, request())
            assert reply.end == (code.name, text)
            assert names(reply.trailing, "x-why", "grpc-status-details-bin") == [
                ("x-why", "y"),
                ("grpc-status-details-bin", b"\x08\x05d\xff"),
            ]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL])
async def test_a_servers_own_status_without_metadata_keeps_its_text(behind: Behind, code: grpc.StatusCode) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.abort(code, "the model is loading")

    async with behind() as (server, guarded):
        server.infer = infer
        assert (await ask(guarded.channel, request())).end == (code.name, "the model is loading")


async def test_a_server_that_fails_after_its_head(behind: Behind) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-i", "1"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "no")

    async with behind() as (server, guarded):
        server.infer = infer
        reply = await ask(guarded.channel, request())
        assert reply.end == ("NOT_FOUND", "no")
        assert ("x-i", "1") in (*reply.initial, *reply.trailing)


async def test_a_server_that_fails_without_a_word(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        raise ValueError("a fault of the server's")

    async with behind() as (server, guarded):
        server.infer = infer
        assert (await ask(guarded.channel, request())).code is grpc.StatusCode.UNKNOWN
    caplog.clear()  # the server, which is in this process, has logged it


async def test_refusals_of_guards_own_on_the_wire(behind: Behind) -> None:
    """HTTP 200, gRPC's content type, a status, a text that HTTP can carry, details."""
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(call(1, b"/a/B", b""))
        stream = await caller.ended(1)
        assert (stream.http, stream.grpc) == (200, 7)
        assert dict(stream.blocks[0])[b"content-type"].startswith(b"application/grpc")
        assert stream.trailers[b"grpc-message"] == b"the method is not allowed"
        assert b"grpc-status-details-bin" in stream.trailers
        assert stream.ended


async def test_texts_are_escaped_on_the_wire(behind: Behind) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "ü%\n~")

    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        server.infer = infer
        caller.send(call(1, INFER.encode(), request()))
        assert (await caller.ended(1)).trailers[b"grpc-message"] == b"%C3%BC%25%0A~"


# --- servers made of frames


HEAD = frames.headers(1, GOOD)
OK = frames.data(1, frames.message(b"ok"))
HTML = frames.headers(1, [(b":status", b"200"), (b"content-type", b"text/html")])


def failed(status: bytes) -> bytes:
    return frames.headers(1, [(b":status", status), (b"content-type", b"text/plain")]) + frames.data(
        1, b"a page", end=True
    )


HINTS = frames.headers(1, [(b":status", b"103"), (b"link", b"</x>")])
END = trailers(1, b"0")
PADDED_HEAD = frames.frame(1, frames.END_HEADERS | frames.PADDED, 1, b"\3" + HEAD[9:] + b"\0\0\0")
PADDED_BODY = frames.frame(0, frames.PADDED, 1, b"\5" + frames.message(b"ok") + bytes(5))
SUBTYPE = frames.headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc+proto")])
WELL: dict[str, tuple[bytes, ...]] = {
    "as it should be": (HEAD, OK, END),
    "in small pieces": (HEAD, *[frames.data(1, bytes([b])) for b in frames.message(b"ok")], END),
    "with a padded head": (PADDED_HEAD, OK, END),
    "with a padded body": (HEAD, PADDED_BODY, END),
    "with a priority": (frames.frame(1, 0x24, 1, b"\0\0\0\0\x0f" + HEAD[9:]), OK, END),
    "with empty frames": (HEAD, *[frames.data(1, b"")] * 5, OK, *[frames.data(1, b"")] * 5, END),
    "among unknown frames": (frames.frame(0xBE, 0xFF, 1, b"?"), HEAD, frames.frame(0xBE, 0, 1), OK, END),
    "among pings": (frames.frame(6, 0, 0, b"12345678"), HEAD, frames.frame(6, 0, 0, bytes(8)), OK, END),
    "after 103 Early Hints": (HINTS, HEAD, OK, END),
    "and a reset that says no error": (HEAD, OK, END, frames.rst(1, frames.NO_ERROR)),
    "with a subtype": (SUBTYPE, OK, END),
}
LOST = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
GRPCIO_DOES_NOT = {"with a padded head", "with a padded body", "after 103 Early Hints"}


@pytest.mark.parametrize("name", WELL)
async def test_what_http2_allows_is_understood(guarding: Any, plane: str, name: str) -> None:
    async with odd.odd(told(*WELL[name])) as server, guarding(server.address) as guarded:
        for _ in range(3):
            reply = await ask(guarded.channel, request())
            if plane == "grpcio" and name in GRPCIO_DOES_NOT:
                assert reply.code in {*LOST, grpc.StatusCode.UNAVAILABLE}  # of one that finds the connection ending
            else:
                assert reply.body == b"ok"
        assert len(server.wires) == 1 or plane == "grpcio"


def body(raw: bytes) -> tuple[bytes, ...]:
    return HEAD, frames.data(1, raw), END


ILL: dict[str, tuple[tuple[bytes, ...], set[str]]] = {
    "no status": ((HEAD, OK, frames.data(1, b"", end=True)), {"UNKNOWN", "INTERNAL"}),
    "a status that is no number": ((HEAD, OK, trailers(1, b"zero")), {"UNKNOWN", "INTERNAL"}),
    "an unknown status": ((HEAD, trailers(1, b"99")), {"UNKNOWN"}),
    "ok without a message": ((HEAD, END), {"INTERNAL"}),
    "two messages": (body(frames.message(b"ok") * 2), {"INTERNAL"}),
    "half a message": (body(b"\0\0\0\0\x09half"), {"INTERNAL"}),
    "a message of 4 GB": (body(b"\0\xff\xff\xff\xffx"), {"RESOURCE_EXHAUSTED"}),
    "a message compressed with nothing": (body(frames.message(b"ok", 1)), {"INTERNAL"}),
    "a flag that is none": (body(frames.message(b"ok", 7)), {"INTERNAL"}),
    "another content type": ((HTML, OK, END), {"INTERNAL", "UNKNOWN"}),
    "404": ((failed(b"404"),), {"UNIMPLEMENTED"}),
    "401": ((failed(b"401"),), {"UNAUTHENTICATED"}),
    "403": ((failed(b"403"),), {"PERMISSION_DENIED"}),
    "429": ((failed(b"429"),), {"UNAVAILABLE"}),
    "503": ((failed(b"503"),), {"UNAVAILABLE"}),
    "500": ((failed(b"500"),), {"UNKNOWN", "INTERNAL"}),
    "a reset that refuses": ((frames.rst(1, frames.REFUSED_STREAM),), {"UNAVAILABLE"}),
    "a reset that cancels": ((frames.rst(1, frames.CANCEL),), {"CANCELLED", "UNAVAILABLE", "INTERNAL"}),
    "a reset by a fault": ((HEAD, OK, frames.rst(1, frames.INTERNAL_ERROR)), {"INTERNAL", "UNAVAILABLE"}),
    "a body before its head": ((OK, HEAD, END), {"UNAVAILABLE", "INTERNAL"}),
    "a promise": ((frames.frame(5, 4, 1, b"\0\0\0\2" + HEAD[9:]),), {"UNAVAILABLE", "INTERNAL"}),
    "no HTTP/2 at all": ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), {"UNAVAILABLE", "INTERNAL"}),
    "a block that cannot be read": ((frames.frame(1, 4, 1, b"\xff" * 7),), {"UNAVAILABLE", "INTERNAL"}),
}
GRPCIO = {
    "a message compressed with nothing": {"OK"},
    "another content type": {"OK"},
    "a body before its head": {"OK"},
    "two messages": {"DEADLINE_EXCEEDED"},
    "a promise": {"DEADLINE_EXCEEDED"},
}
"""grpc.aio makes an empty answer of what its core could not read."""


@pytest.mark.parametrize("name", ILL)
async def test_what_is_no_answer(guarding: Any, plane: str, name: str) -> None:
    """A status with nothing of this network in it; and the next call is answered."""
    raw, codes = ILL[name]
    if plane == "grpcio":
        codes = GRPCIO.get(name, codes)
    async with odd.odd(told(*raw)) as server, guarding(server.address) as guarded:
        reply = await ask(guarded.channel, request(), timeout=1 if "DEADLINE_EXCEEDED" in codes else 10)
        assert reply.code.name in codes
        assert "127.0.0.1" not in reply.details
        server.answer = odd.good
        async with asyncio.timeout(5):
            while (again := await ask(guarded.channel, request())).code is not grpc.StatusCode.OK:  # connecting anew
                await asyncio.sleep(0.02)
        assert again.body == b"ok"


@pytest.mark.parametrize("path", [TALK, STREAM])
async def test_streams_end_with_the_servers_status(behind: Behind, path: str) -> None:
    async def stream(bodies: Any, context: Any) -> Any:
        await context.send_initial_metadata((("x-i", "1"),))
        async for _ in bodies:
            yield b"\x0a\x05hello"
        await context.abort(grpc.StatusCode.DATA_LOSS, "übel", (("x-t", "2"), ("x-t-bin", b"\xff")))

    async with behind(methods={"allow": [TALK]}) as (server, guarded):
        server.stream = stream
        reply = await talk(guarded.channel, request(), request(), path=path)
        assert reply.end == ("DATA_LOSS", "übel")
        assert reply.bodies == [b"\x0a\x05hello"] * 2
        assert names(reply.initial, "x-i") == [("x-i", "1")]
        assert names(reply.trailing, "x-t", "x-t-bin") == [("x-t", "2"), ("x-t-bin", b"\xff")]


async def test_unknown_paths_are_denied_and_never_forwarded(behind: Behind) -> None:
    async with behind() as (server, guarded):
        for path in (
            "/",
            "/a/b",
            PASSED + "/",
            PASSED.lower(),
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ):
            for reply in (await ask(guarded.channel, request(), path), await talk(guarded.channel, b"x", path=path)):
                assert reply.end == ("PERMISSION_DENIED", "the method is not allowed")
            assert not server.calls(path)
