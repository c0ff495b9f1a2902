"""Streams in `guard_upstream_calls_total`: each once, by the status with which the upstream ended it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from guard.proxy import models
from guard.proxy.writing import write_all
from tests.planes.at import TALK, ask, talk, told, until
from tests.proxy.world import METADATA, STREAM, Guarded, profile, request

Behind = Callable[..., Any]
PATHS = [TALK, STREAM]
ALLOWED = {"methods": {"allow": [TALK]}}
NOWHERE = "127.0.0.1:9"
WORDS = [request()] * 3


def counted(guarded: Guarded) -> dict[tuple[str, str, str], float]:
    """Calls by model, purpose and code, without those of Guard's own."""
    samples = [s for family in guarded.metrics.upstream_calls.collect() for s in family.samples]
    found = {(s.labels["model"], s.labels["purpose"], s.labels["grpc_code"]): s.value for s in samples}
    return {key: value for key, value in found.items() if key[1] in {"original", "stream", "pass"}}


def once(path: str, code: str) -> dict[tuple[str, str, str], float]:
    """One stream: where nobody reads it, nobody knows its model."""
    return {("unknown", "pass", code) if path == TALK else ("m", "stream", code): 1.0}


async def echo(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for body in bodies:
        yield body


async def hang(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for body in echo(bodies, context):
        yield body
        break
    await asyncio.sleep(60)


def failing(code: grpc.StatusCode) -> Any:
    async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield body
        await context.abort(code, "no")

    return stream


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", ["OK", "UNAVAILABLE", "INTERNAL", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"])
async def test_a_stream_counts_once_as_the_server_ends_it(behind: Behind, path: str, code: str) -> None:
    async with behind(**ALLOWED) as (server, guarded):
        server.stream = echo if code == "OK" else failing(grpc.StatusCode[code])
        assert (await talk(guarded.channel, *WORDS, path=path)).code.name == code
        await until(lambda: counted(guarded) == once(path, code))


@pytest.mark.parametrize(("path", "messages"), [(TALK, 0), (STREAM, 3)])
async def test_messages_count_one_by_one_where_they_are_read(behind: Behind, path: str, messages: int) -> None:
    async with behind(**ALLOWED) as (server, guarded):
        server.stream = echo
        await talk(guarded.channel, *WORDS, path=path)
        assert guarded.count("guard_stream_messages_total") == messages


@pytest.mark.parametrize("path", PATHS)
async def test_a_server_that_cannot_be_reached(guarding: Behind, path: str) -> None:
    async with guarding(NOWHERE, **ALLOWED) as guarded:
        assert (await talk(guarded.channel, *WORDS, path=path)).code.name == "UNAVAILABLE"
        await until(lambda: counted(guarded) == once(path, "UNAVAILABLE"))


async def begun(channel: aio.Channel, path: str) -> Any:
    """A stream that has said WORDS and heard one answer."""
    call: Any = channel.stream_stream(path)(timeout=20)
    for word in WORDS:
        await call.write(word)
    await call.read()
    return call


@pytest.mark.parametrize("purpose", ["original", "stream"])
@pytest.mark.usefixtures("world_stages")
async def test_a_server_that_does_not_say_what_it_serves(guarding: Behind, tmp_path: Path, purpose: str) -> None:
    """The call is not made, and would have failed."""
    profile(tmp_path / "m.gpf", METADATA)
    model = {"name": "m", "profile": str(tmp_path / "m.gpf"), "detectors": [{"stage": "test_mean"}]}
    async with guarding(NOWHERE, models=[model]) as guarded:
        reply = await (ask(guarded.channel, request()) if purpose == "original" else talk(guarded.channel, *WORDS))
        assert reply.code.name == "UNAVAILABLE"
        await until(lambda: counted(guarded) == {("m", purpose, "UNAVAILABLE"): 1.0})


@pytest.mark.parametrize("path", PATHS)
async def test_a_caller_that_leaves_counts_as_cancelled(behind: Behind, path: str) -> None:
    async with behind(**ALLOWED) as (server, guarded):
        server.stream = hang
        call = await begun(guarded.channel, path)
        call.cancel()
        await until(lambda: counted(guarded) == once(path, "CANCELLED"))


@pytest.mark.parametrize("path", PATHS)
async def test_a_server_that_hangs_counts_as_late_whoever_gave_up(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(models, "HUNG_S", 0.3)
    async with behind(**ALLOWED) as (server, guarded):
        server.stream = hang
        call = await begun(guarded.channel, path)
        await asyncio.sleep(0.6)
        call.cancel()
        await until(lambda: counted(guarded) == once(path, "DEADLINE_EXCEEDED"))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("closes", [True, False])
async def test_a_silence_is_the_servers_where_it_owes_something(behind: Behind, path: str, closes: bool) -> None:
    """An answer, or an end: a caller that has his answers and says nothing more was not let down."""

    async def lingering(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for body in bodies:
            yield body
        await asyncio.sleep(60)

    async with behind(timeout_s=0.6, **ALLOWED) as (server, guarded):
        server.stream = lingering
        call = guarded.channel.stream_stream(path)(timeout=20)
        await call.write(request())
        await call.read()
        if closes:
            await call.done_writing()
        assert (await told(call)).code.name == "DEADLINE_EXCEEDED"
        await until(lambda: counted(guarded) == once(path, "DEADLINE_EXCEEDED" if closes else "CANCELLED"))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("answers", [True, False])
async def test_a_callers_deadline_is_the_callers_where_answers_come(behind: Behind, path: str, answers: bool) -> None:
    async with behind(**ALLOWED) as (server, guarded):
        server.stream = echo if answers else hang
        call = guarded.channel.stream_stream(path)(timeout=1.0)

        async def words() -> AsyncIterator[bytes]:
            while True:
                yield request()
                await asyncio.sleep(0.02)

        saying = asyncio.create_task(write_all(call, words()))
        assert (await told(call)).code.name == "DEADLINE_EXCEEDED"
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
        await until(lambda: counted(guarded) == once(path, "CANCELLED" if answers else "DEADLINE_EXCEEDED"))


@pytest.mark.parametrize("path", PATHS)
async def test_a_caller_in_a_hurry_does_not_make_a_server_look_broken(behind: Behind, path: str) -> None:
    async with behind(**ALLOWED) as (server, guarded):
        server.stream = hang
        call = guarded.channel.stream_stream(path)(timeout=0.3)
        await call.write(request())
        assert (await told(call)).code.name == "DEADLINE_EXCEEDED"
        await until(lambda: counted(guarded) == once(path, "CANCELLED"))


async def test_a_caller_that_does_not_read_is_not_the_servers_fault(behind: Behind) -> None:
    async def flood(bodies: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await anext(aiter(bodies))
        for _ in range(1000):
            yield bytes(500_000)

    async with behind(timeout_s=0.8, **ALLOWED) as (server, guarded):
        server.stream = flood
        call = guarded.channel.stream_stream(TALK)(timeout=20)
        for word in WORDS:
            await call.write(word)
        await until(lambda: counted(guarded) == once(TALK, "CANCELLED"))
        call.cancel()
