"""The listener against callers that keep no rules, and a gate that fails."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from guard.metrics import Metrics
from guard.proxy import server as listener
from guard.proxy.admission import Admission
from guard.proxy.seam import Call, Reply
from guard.settings import Limits, Listen
from tests.proxy import certs
from tests.proxy.world import (
    CLEAN,
    FLAGGED,
    INFER,
    SQUEEZED,
    STREAM,
    ended,
    eventually,
    profile,
    raw_call,
    request,
    world,
)


async def test_metadata_that_cannot_travel_is_refused_and_the_server_lives() -> None:
    async with world() as (server, guarded):
        reply = await raw_call(guarded.app.address, INFER.encode(), (b"x-key", b"\xff\xfe"))
        assert b"ASCII" in reply
        assert not server.calls()
        assert (await guarded.unary(request())).body


async def test_a_path_that_is_no_text_does_not_end_the_server() -> None:
    async with world() as (_, guarded):
        await raw_call(guarded.app.address, b"/a/\xff\xfe")
        assert (await guarded.unary(request())).body


async def test_a_call_without_a_message_is_answered() -> None:
    async with world() as (server, guarded):
        reply = await guarded.stream(path=INFER)
        assert (reply.code, reply.details) == (grpc.StatusCode.INVALID_ARGUMENT, "the call carries no message")
        assert not server.calls()


async def test_a_call_that_never_sends_its_message_loses_its_place() -> None:
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 0, "drain_s": 0}
    async with world(limits=limits, timeout_s=0.4) as (_, guarded):
        call = guarded.channel.stream_stream(INFER)()
        await eventually(lambda: guarded.count("guard_calls_in_flight") == 1)
        assert (await guarded.unary(request())).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await ended(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await guarded.unary(request())).body


async def test_what_finds_no_place_is_never_read() -> None:
    """A caller's megabytes stay with the caller: the flow-control window is all that arrives."""
    limits = {"max_concurrent_calls": 1, "max_queued_calls": 1, "drain_s": 0}
    async with world(limits=limits) as (server, guarded):
        go = asyncio.Event()

        async def infer(body: bytes, context: Any) -> bytes:
            await go.wait()
            return b""

        server.infer = infer
        first = asyncio.create_task(guarded.unary(request()))
        await eventually(server.calls)
        waiting = guarded.channel.stream_stream(INFER)()
        sending = asyncio.create_task(waiting.write(b"x" * 20_000_000))
        await eventually(lambda: guarded.count("guard_calls_queued") == 1)
        await asyncio.sleep(0.2)
        assert not sending.done()
        go.set()
        await sending
        assert (await first).code is grpc.StatusCode.OK
        assert (await ended(waiting)).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_answer_that_is_not_read_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "UNREAD_S", 0.3)
    async with world() as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            return b"x" * 30_000_000

        server.infer = infer
        call = guarded.channel.stream_stream(INFER)()
        await call.write(request())
        await eventually(lambda: server.calls())
        await eventually(lambda: guarded.count("guard_calls_in_flight") == 0)
        call.cancel()


class Failing:
    """A gate with a fault."""

    async def unary(self, call: Call, exchange: listener.Exchange) -> None:
        raise RuntimeError("secret detail")

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> Any:
        raise RuntimeError("secret detail")


@pytest.mark.parametrize("path", [INFER, STREAM])
async def test_a_fault_of_guards_own_says_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    made, address = listener.make_server(Failing(), Listen(address="127.0.0.1:0"), Limits())
    await made.start()
    async with aio.insecure_channel(address) as channel:
        reply = await ended(channel.stream_stream(path)(timeout=10))
    await made.stop(None)
    assert (reply.code, reply.details) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "secret detail" in caplog.text


class Codes:
    """A gate that answers with any number."""

    async def unary(self, call: Call, exchange: listener.Exchange) -> None:
        await exchange.send(Reply(code=int((await exchange.receive(5.0)) or b""), details="d"))

    def stream(self, call: Call, bodies: AsyncIterator[bytes]) -> Any:
        raise NotImplementedError


async def test_every_code_travels_and_others_are_unknown() -> None:
    made, address = listener.make_server(Codes(), Listen(address="127.0.0.1:0"), Limits())
    await made.start()
    async with aio.insecure_channel(address) as channel:
        for code in [*range(1, 17), 17, 99]:
            reply = await ended(channel.unary_unary(INFER)(str(code).encode(), timeout=10))
            assert reply.code.value[0] == (code if code <= 16 else 2)
            assert reply.details == "d"
    await made.stop(None)


async def test_a_place_that_comes_as_the_caller_leaves_is_handed_on() -> None:
    admission = Admission(1, 2, Metrics())
    await admission.enter(1)
    second, third = (asyncio.create_task(admission.enter(10)) for _ in range(2))
    await asyncio.sleep(0)
    admission.leave()  # the place is second's
    second.cancel()  # which leaves before it knows
    await asyncio.gather(second, return_exceptions=True)
    await asyncio.wait_for(third, 5)
    admission.leave()
    await admission.enter(0)


async def test_more_places_let_those_in_who_wait() -> None:
    admission = Admission(1, 2, Metrics())
    await admission.enter(1)
    waiting = asyncio.create_task(admission.enter(10))
    await asyncio.sleep(0)
    admission.resize(2, 2)
    await asyncio.wait_for(waiting, 5)


@pytest.mark.usefixtures("world_stages")
async def test_callers_that_come_and_go_leave_nothing_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unary calls and streams, cancelled, timed out, refused and answered in random order."""
    random = Random(3)
    stages: dict[str, Any] = {"detectors": [{"stage": "test_mean"}, {"stage": "test_views"}], "monitors": []}
    guarded_model = {"name": "m", "profile": profile(tmp_path / "p"), "mode": "enforce", **stages}
    limits = {"max_concurrent_calls": 8, "max_queued_calls": 8, "drain_s": 0}
    async with world(models=[guarded_model], limits=limits) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            await asyncio.sleep(random.random() / 50)
            return await server.plain(body, context)

        server.infer = infer
        before = len(asyncio.all_tasks())

        async def caller() -> None:
            for _ in range(15):
                body = request(random.choice((CLEAN, FLAGGED, SQUEEZED)))
                call: Any = guarded.channel.unary_unary(INFER)(body, timeout=random.choice((0.01, 0.03, 5)))
                if random.random() < 0.5:
                    call = guarded.channel.stream_stream(STREAM)(timeout=random.choice((0.01, 0.05, 5)))
                    with contextlib.suppress(aio.AioRpcError, aio.InternalError, asyncio.InvalidStateError):
                        await call.write(body)
                        await call.write(body)
                        await call.done_writing()
                if random.random() < 0.3:
                    await asyncio.sleep(random.random() / 50)
                    call.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ended(call)

        await asyncio.gather(*(caller() for _ in range(12)))
        await eventually(lambda: guarded.app.runtime.calls == 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
        await eventually(lambda: guarded.count("guard_calls_in_flight") == guarded.count("guard_calls_queued") == 0)
        assert (await guarded.unary(request())).body
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_mutual_tls_makes_the_caller_known_to_the_audit(tmp_path: Path) -> None:
    ca = certs.Authority()
    cert, key = ca.leaf("guard", dns=("localhost",)).write(tmp_path, "guard")
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    tls: dict[str, Any] = {"cert_file": str(cert), "key_file": str(key), "client_ca_file": str(tmp_path / "ca.crt")}
    tls |= {"require_client_cert": True}
    changes = {
        "listen": {"address": "localhost:0", "tls": tls},
        "identity": {"chain": [{"kind": "mtls_subject"}], "required": True},
        "audit": {"file": str(tmp_path / "audit.jsonl"), "sample_allowed": 1.0},
        "models": [{"name": "m", "profile": profile(tmp_path / "p")}],
    }
    alice = ca.leaf("alice")
    known = grpc.ssl_channel_credentials(ca.pem, alice.key, alice.cert)
    async with world(**changes) as (server, guarded):
        for credentials, code in (
            (known, grpc.StatusCode.OK),
            (grpc.ssl_channel_credentials(ca.pem), grpc.StatusCode.UNAVAILABLE),
        ):
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with aio.secure_channel(guarded.app.address, credentials, options) as channel:
                assert (await ended(channel.unary_unary(INFER)(request(), timeout=20))).code is code
        assert len(server.calls()) == 1
    assert json.loads((tmp_path / "audit.jsonl").read_text())["caller"] == "cn:alice"


@pytest.mark.usefixtures("world_stages")
async def test_stages_that_hang_do_not_hold_up_reading(tmp_path: Path) -> None:
    """Every thread for stages is taken; large messages are still read, and forwarded as the settings say."""
    slow = {"slow_s": 1.0}
    guarded_model = {
        "name": "m",
        "profile": profile(tmp_path / "p", **slow),
        "detectors": [{"stage": "test_mean", "options": slow}],
    }
    limits = {"inspection_timeout_s": 0.2, "inspection_threads": 1, "drain_s": 0}
    async with world(models=[guarded_model], limits=limits) as (server, guarded):

        async def infer(body: bytes, context: Any) -> bytes:
            return b""

        server.infer = infer
        large = request(np.tile(CLEAN, (2000, 1)))
        replies = await asyncio.gather(*(guarded.unary(large, timeout=10) for _ in range(6)))
        assert [reply.body for reply in replies] == [b""] * 6
        assert guarded.count("guard_uninspected_total", model="m", reason="inspection_timeout") == 6
