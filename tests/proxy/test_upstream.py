"""The hop to a server: which statuses are the server's own, TLS with rotated files, and what is asked about models."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from guard.proxy import models, probe, status
from guard.proxy.status import Code
from guard.proxy.upstream import RemoteUpstream
from guard.settings import ClientTls, ConfigError, Limits, Upstream
from guard.types import ModelMetadata
from tests.proxy import certs
from tests.proxy.test_inspection import MEAN, model
from tests.proxy.world import (
    CLEAN,
    FLAGGED,
    INFER,
    METADATA,
    SERVICE,
    Server,
    _Handlers,
    eventually,
    guarding,
    request,
    settings,
    world,
)

__all__ = ["model"]  # the fixture


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'm' is not found"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests in the queue"),
        (grpc.StatusCode.INTERNAL, "onnx runtime error 2"),
        (grpc.StatusCode.UNKNOWN, ""),
        (grpc.StatusCode.CANCELLED, "the model is shutting down"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "request timeout expired in the queue"),
    ],
)
async def test_the_servers_own_statuses_keep_their_texts(code: grpc.StatusCode, details: str) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        await context.abort(code, details)

    async with world() as (server, guarded):
        server.infer = infer
        reply = await guarded.unary(request())
        assert (reply.code, reply.details) == (code, details)


async def test_calls_that_fail_do_not_keep_what_was_sent() -> None:
    """A call of grpc.aio's that fails is a cycle; the collector may not come for minutes."""

    async def never(body: bytes, context: Any) -> bytes:
        await asyncio.sleep(30)
        return body

    body = request(np.zeros((50, 4), np.float32))
    gc.disable()
    try:
        async with world({"infer": never}) as (server, guarded):
            upstream = guarded.app.runtime.default.upstream
            before = sys.getrefcount(body)
            for _ in range(5):
                assert (await upstream.unary(INFER, body, (), 0.2)).code == Code.DEADLINE_EXCEEDED
                call = asyncio.ensure_future(upstream.unary(INFER, body, (), 20.0))
                count = len(server.calls())
                await eventually(lambda count=count: len(server.calls()) > count)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            del call
            assert sys.getrefcount(body) < before + 5  # ten calls were made
    finally:
        gc.enable()


async def test_metadata_past_the_limit_is_no_answer_and_no_leak() -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-big", "v" * 100_000),))
        return b""

    async with world() as (server, guarded):
        server.infer = infer
        reply = await guarded.unary(request())
        assert reply.code is not grpc.StatusCode.OK
        assert "127.0.0.1" not in reply.details
        too_big = await guarded.unary(request(), metadata=(("x-big", "v" * 100_000),))
        assert too_big.code is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- TLS


@pytest.fixture
def ca() -> certs.Authority:
    return certs.Authority()


@contextlib.asynccontextmanager
async def tls_server(ca: certs.Authority) -> AsyncIterator[tuple[Server, list[str]]]:
    """A server that wants certificates, and the names on those that came with inferences."""
    server, names = Server(), []
    leaf = ca.leaf("server", dns=("localhost",))

    async def infer(body: bytes, context: Any) -> bytes:
        names.append(context.auth_context()["x509_common_name"][0].decode())
        return await server.plain(body, context)

    server.infer = infer
    credentials = grpc.ssl_server_credentials([(leaf.key, leaf.cert)], ca.pem, require_client_auth=True)
    server.server = aio.server()
    server.server.add_generic_rpc_handlers((_Handlers(server),))
    server.address = f"localhost:{server.server.add_secure_port('localhost:0', credentials)}"
    await server.server.start()
    try:
        yield server, names
    finally:
        await server.server.stop(None)


async def test_certificates_are_shown_and_rotated_ones_without_a_restart(
    ca: certs.Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "READY_EVERY_S", 0.1)
    cert, key = ca.leaf("first").write(tmp_path, "guard")
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    files = {"ca_file": str(tmp_path / "ca.crt"), "cert_file": str(cert), "key_file": str(key)}
    async with tls_server(ca) as (server, names):
        made = settings(server.address, upstream={"address": server.address, "tls": files})
        async with guarding(made) as guarded:
            assert (await guarded.unary(request())).body
            key.write_bytes(b"half")
            await eventually(lambda: "kept the old certificates" in caplog.text)
            assert (await guarded.unary(request())).body
            ca.leaf("second").write(tmp_path, "guard")
            async with asyncio.timeout(15):
                while names[-1] != "second":
                    assert (await guarded.unary(request())).body
                    await asyncio.sleep(0.05)
            assert set(names) == {"first", "second"}


async def test_an_upstream_that_is_another_is_unavailable(ca: certs.Authority, tmp_path: Path) -> None:
    cert, key = ca.leaf("guard").write(tmp_path, "guard")
    (tmp_path / "ca.crt").write_bytes(certs.Authority("stranger").pem)
    files = {"ca_file": str(tmp_path / "ca.crt"), "cert_file": str(cert), "key_file": str(key)}
    async with tls_server(ca) as (server, names):
        async with guarding(settings(server.address, upstream={"address": server.address, "tls": files})) as guarded:
            reply = await guarded.unary(request())
            assert (reply.code, reply.details) == (grpc.StatusCode.UNAVAILABLE, "upstream unavailable")
        assert not names


async def test_files_that_cannot_be_used_at_the_start_are_named(tmp_path: Path) -> None:
    missing = ClientTls(ca_file=tmp_path / "none.crt")
    with pytest.raises(ConfigError, match=r"none\.crt"):
        RemoteUpstream(Upstream(address="h:1", tls=missing), Limits())


# --- what is asked about models


async def test_a_model_that_cannot_be_described_is_not_forwarded_uninspected(model: Any, world_stages: None) -> None:
    """While the upstream loads it, say. Without a profile there is nothing to compare: the server's own error comes."""
    async with world(**model(MEAN)) as (server, guarded):
        server.metadata = ModelMetadata("another", (), "", (), ())
        guarded.app.runtime.models["m"]._connection = None
        reply = await guarded.unary(request(FLAGGED))
        assert (reply.code, reply.details) == (
            grpc.StatusCode.NOT_FOUND,
            "Request for unknown model: 'm' is not found",
        )
        assert not server.calls()
        server.metadata = METADATA
        assert (await guarded.unary(request(FLAGGED))).code is grpc.StatusCode.PERMISSION_DENIED
    async with world({"metadata": ModelMetadata("another", (), "", (), ())}) as (server, guarded):
        assert (await guarded.unary(request())).code is grpc.StatusCode.NOT_FOUND
        assert len(server.calls()) == 1


@pytest.mark.parametrize(
    ("on_mismatch", "code"), [("allow", grpc.StatusCode.OK), ("deny", grpc.StatusCode.UNAVAILABLE)]
)
async def test_an_upstream_that_never_describes_models(
    model: Any, on_mismatch: str, code: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch, world_stages: None
) -> None:
    async def undescribed(self: Server, path: str, body: bytes, context: Any) -> bytes:
        if path.endswith(("ModelMetadata", "ModelReady", "ServerReady")):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no")
        return await self.plain(body, context)

    monkeypatch.setattr(Server, "unary", undescribed)
    async with world(**model(MEAN, on_profile_mismatch=on_mismatch)) as (server, guarded):
        for _ in range(3):
            assert (await guarded.unary(request(CLEAN))).code is code
        asked = len(server.calls(SERVICE + "ModelMetadata"))
        assert (await guarded.unary(request(CLEAN))).code is code
        assert len(server.calls(SERVICE + "ModelMetadata")) == asked  # it is not asked at every call
        assert "does not describe" in guarded.app.runtime.models["m"].reason
        assert guarded.app.runtime.ready


async def test_metadata_is_asked_again_from_time_to_time(
    model: Any, monkeypatch: pytest.MonkeyPatch, world_stages: None
) -> None:
    monkeypatch.setattr(models, "REFRESH_S", 0.1)
    monkeypatch.setattr(probe, "READY_EVERY_S", 0.1)
    async with world(**model(MEAN)) as (server, guarded):
        assert (await guarded.unary(request(FLAGGED))).code is grpc.StatusCode.PERMISSION_DENIED
        server.metadata = ModelMetadata("m", ("2",), "test", METADATA.inputs, METADATA.outputs)
        await eventually(lambda: guarded.count("guard_profile_mismatch", model="m") == 1)
        assert (await guarded.unary(request(FLAGGED))).body
        assert guarded.app.runtime.models["m"].engine is None


async def test_many_calls_ask_for_the_metadata_once() -> None:
    async with world() as (server, guarded):
        guarded.app.runtime.models["m"].metadata = None
        before = len(server.calls(SERVICE + "ModelMetadata"))
        replies = await asyncio.gather(*(guarded.unary(request(), INFER) for _ in range(20)))
        assert all(reply.body for reply in replies)
        assert len(server.calls(SERVICE + "ModelMetadata")) <= before + 2


def test_a_number_that_is_no_code_is_unknown_in_metrics() -> None:
    assert [status.name_of(code) for code in (0, 5, 16, 17)] == ["OK", "NOT_FOUND", "UNAUTHENTICATED", "UNKNOWN"]
