"""TLS towards callers: who is let in, who is known, what a rotation changes, and what is no TLS for HTTP/2."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc import aio

from guard.proxy.gate import Gate
from guard.proxy.seam import Call
from tests.planes import frames, served
from tests.planes.at import LARGE, PASSED, ask, until
from tests.planes.frames import wire
from tests.proxy.certs import Authority, Pair
from tests.proxy.world import INFER, request

Behind = Callable[..., Any]
SERVED = {"dns": ("localhost",)}
SPIFFE = "spiffe://example.org/app"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NAMED = ("grpc.ssl_target_name_override", "localhost")


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def stranger() -> Authority:
    return Authority("another authority")


@pytest.fixture(autouse=True)
def no_farewell(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's clients do not answer a close_notify at once; nobody waits for it here."""
    if plane == "fast":
        from guard.proxy.fast import listener

        monkeypatch.setattr(listener, "BREATH_S", 0.02)


@pytest.fixture
def listen(ca: Authority, tmp_path: Path) -> dict[str, Any]:
    """A listener with TLS."""
    cert, key = ca.leaf("first", **SERVED).write(tmp_path, "server")
    return {"address": "127.0.0.1:0", "tls": {"cert_file": str(cert), "key_file": str(key)}}


@pytest.fixture
def mutual(listen: dict[str, Any], ca: Authority, tmp_path: Path) -> dict[str, Any]:
    """A listener that wants to know who calls."""
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    return {**listen, "tls": {**listen["tls"], "client_ca_file": str(tmp_path / "ca.crt"), "require_client_cert": True}}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the listener hands to the gate."""
    made: list[Call] = []
    real = Gate.unary

    async def unary(self: Gate, call: Call, exchange: Any) -> None:
        made.append(call)
        await real(self, call, exchange)

    monkeypatch.setattr(Gate, "unary", unary)
    return made


def credentials(ca: Authority, pair: Pair | None = None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(ca.pem, *(() if pair is None else (pair.key, pair.cert)))


async def end(guarded: Any, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    """How a call on a connection of its own ends."""
    options = [("grpc.use_local_subchannel_pool", 1), NAMED]
    async with aio.secure_channel(guarded.app.address, credentials, options) as channel:
        return (await ask(channel, request())).code


def context(ca: Authority, pair: Pair | None = None, tmp_path: Path | None = None) -> ssl.SSLContext:
    """Python's own TLS, with ALPN as gRPC has it."""
    made = ssl.create_default_context(cadata=ca.pem.decode())
    made.set_alpn_protocols(["h2"])
    if pair is not None and tmp_path is not None:
        made.load_cert_chain(*pair.write(tmp_path, "mine"))
    return made


async def shown(guarded: Any, ca: Authority) -> str:
    """The name on the certificate that a new connection gets to see."""
    _, writer = await frames.connected(guarded.app.address, context(ca))
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


async def refused(address: str, tls: ssl.SSLContext | None) -> bool:
    """Whether a connection ends without an answer to a call."""
    try:
        async with wire(address, tls=tls) as caller:
            caller.send(frames.call(1, INFER.encode(), request()))
            stream = await caller.ended(1, timeout_s=5)
            return not stream.blocks
    except OSError:
        return True


async def test_a_caller_that_trusts_the_authority_is_served(
    behind: Behind, listen: dict[str, Any], ca: Authority, stranger: Authority
) -> None:
    async with behind(listen=listen) as (server, guarded):
        assert await end(guarded, credentials(ca)) is grpc.StatusCode.OK
        assert await end(guarded, credentials(stranger)) is UNAVAILABLE
        assert await end(guarded, credentials(ca)) is grpc.StatusCode.OK
        assert len(server.calls()) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_python_speaks_tls_with_it(
    behind: Behind, listen: dict[str, Any], ca: Authority, version: ssl.TLSVersion
) -> None:
    tls = context(ca)
    tls.minimum_version = tls.maximum_version = version
    async with behind(listen=listen) as (_, guarded), wire(guarded.app.address, tls=tls) as caller:
        assert caller.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        for number in (1, 3):
            caller.send(frames.call(number, INFER.encode(), request()))
            assert (await caller.ended(number)).grpc == 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(behind: Behind, listen: dict[str, Any], ca: Authority) -> None:
    tls = context(ca)
    tls.set_ciphers("ALL:@SECLEVEL=0")
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    async with behind(listen=listen) as (_, guarded):
        assert await refused(guarded.app.address, tls)
        assert not await refused(guarded.app.address, context(ca))


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["grpc-exp"]])
async def test_without_h2_in_alpn_it_is_refused(
    behind: Behind, plane: str, listen: dict[str, Any], ca: Authority, protocols: list[str]
) -> None:
    tls = ssl.create_default_context(cadata=ca.pem.decode())
    if protocols:
        tls.set_alpn_protocols(protocols)
    async with behind(listen=listen) as (server, guarded):
        assert await refused(guarded.app.address, tls)
        assert not server.calls()
        assert await end(guarded, credentials(ca)) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "first", [frames.PREFACE + frames.settings(), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff"]
)
async def test_what_is_no_tls_is_sent_away(behind: Behind, listen: dict[str, Any], ca: Authority, first: bytes) -> None:
    async with behind(listen=listen) as (server, guarded):
        async with wire(guarded.app.address, first=(first,)) as caller:
            if first[0] == 0x16:  # a handshake that is never finished
                caller.writer.write_eof()
            await asyncio.wait_for(caller.closed.wait(), 5)
        assert await end(guarded, credentials(ca)) is grpc.StatusCode.OK
        assert len(server.calls()) == 1


async def test_a_plain_caller_of_a_listener_with_tls(behind: Behind, listen: dict[str, Any]) -> None:
    async with behind(listen=listen) as (server, guarded):
        assert (await ask(guarded.channel, request(), timeout=3)).code is UNAVAILABLE
        assert not server.calls()


async def test_mutual_tls_refuses_callers_without_a_good_certificate(
    behind: Behind, mutual: dict[str, Any], ca: Authority, stranger: Authority
) -> None:
    async with behind(listen=mutual) as (server, guarded):
        assert await end(guarded, credentials(ca)) is UNAVAILABLE
        assert await end(guarded, credentials(ca, stranger.leaf("alice"))) is UNAVAILABLE
        assert not server.calls()
        assert await end(guarded, credentials(ca, ca.leaf("alice"))) is grpc.StatusCode.OK


async def test_mutual_tls_is_not_fooled_by_python_either(
    behind: Behind, mutual: dict[str, Any], ca: Authority, stranger: Authority, tmp_path: Path
) -> None:
    async with behind(listen=mutual) as (_, guarded):
        assert await refused(guarded.app.address, context(ca))
        assert await refused(guarded.app.address, context(ca, stranger.leaf("eve"), tmp_path))
        assert not await refused(guarded.app.address, context(ca, ca.leaf("alice"), tmp_path))


NAMES = {
    "everything": {"dns": ("alice.example.org", "b.example.org"), "uris": (SPIFFE,)},
    "no alternative": {},
    "a uri that is no id": {"uris": ("https://example.org/app",)},
    "a name that looks like an id": {"dns": (SPIFFE,)},
    "two ids": {"uris": (SPIFFE, "spiffe://example.org/other")},
    "an id beside another uri": {"uris": (SPIFFE, "https://example.org/app")},
}


@pytest.mark.parametrize("common_name", ["alice", "Älice, O=x"])
@pytest.mark.parametrize("name", NAMES)
async def test_what_is_known_of_a_certificate(
    behind: Behind, mutual: dict[str, Any], ca: Authority, calls: list[Call], name: str, common_name: str
) -> None:
    """The same keys and values, whatever speaks TLS: they are what identities are made of."""
    names = NAMES[name]
    async with behind(listen=mutual) as (_, guarded):
        assert await end(guarded, credentials(ca, ca.leaf(common_name, **names))) is grpc.StatusCode.OK
    auth = calls[0].peer.auth
    assert auth["x509_common_name"] == (common_name.encode(),)
    alternatives = {value.encode() for values in names.values() for value in values}
    assert set(auth.get("x509_subject_alternative_name", ())) == alternatives
    is_id = name == "everything"
    assert auth.get("peer_spiffe_id", ()) == ((SPIFFE.encode(),) if is_id else ())


async def test_a_certificate_without_a_common_name(
    behind: Behind, mutual: dict[str, Any], ca: Authority, calls: list[Call]
) -> None:
    async with behind(listen=mutual) as (_, guarded):
        leaf = ca.leaf("", uris=(SPIFFE,))
        assert await end(guarded, credentials(ca, leaf)) is grpc.StatusCode.OK
    assert [value for value in calls[0].peer.auth.get("x509_common_name", ()) if value] == []
    assert calls[0].peer.auth["peer_spiffe_id"] == (SPIFFE.encode(),)


async def test_without_mutual_tls_nobody_is_known(
    behind: Behind, listen: dict[str, Any], ca: Authority, calls: list[Call]
) -> None:
    async with behind(listen=listen) as (_, guarded):
        assert await end(guarded, credentials(ca, ca.leaf("alice", uris=(SPIFFE,)))) is grpc.StatusCode.OK
    known = {"x509_common_name", "x509_subject_alternative_name", "peer_spiffe_id"}
    assert not known & {key for key, values in calls[0].peer.auth.items() if values}


@pytest.mark.parametrize(
    ("kind", "expected"), [("mtls_subject", "cn:alice"), ("spiffe", f"spiffe:{SPIFFE}"), ("peer", "peer:")]
)
async def test_identities_of_mutual_tls(
    behind: Behind, mutual: dict[str, Any], ca: Authority, calls: list[Call], kind: str, expected: str
) -> None:
    async with behind(listen=mutual, identity={"chain": [{"kind": kind}], "required": True}) as (_, guarded):
        pair = ca.leaf("alice", uris=(SPIFFE,))
        assert await end(guarded, credentials(ca, pair)) is grpc.StatusCode.OK
        known = guarded.app.runtime.identity.caller(calls[0])
        assert known.id.startswith(expected)


# --- rotation


async def test_a_rotated_certificate_is_shown_to_new_connections(
    behind: Behind, listen: dict[str, Any], ca: Authority, tmp_path: Path
) -> None:
    async with behind(listen=listen) as (_, guarded):
        assert await shown(guarded, ca) == "CN=first"
        async with wire(guarded.app.address, tls=context(ca)) as old:
            ca.leaf("second", **SERVED).write(tmp_path, "server")
            assert await shown(guarded, ca) == "CN=second"
            old.send(frames.call(1, INFER.encode(), request()))
            assert (await old.ended(1)).grpc == 0  # the open connection lives on
        assert await end(guarded, credentials(ca)) is grpc.StatusCode.OK


async def test_a_rotated_client_authority_counts(
    behind: Behind, mutual: dict[str, Any], ca: Authority, stranger: Authority, tmp_path: Path
) -> None:
    alice, bob = ca.leaf("alice"), stranger.leaf("bob")
    async with behind(listen=mutual) as (_, guarded):
        assert await end(guarded, credentials(ca, alice)) is grpc.StatusCode.OK
        assert await end(guarded, credentials(ca, bob)) is UNAVAILABLE
        (tmp_path / "ca.crt").write_bytes(stranger.pem)
        assert await end(guarded, credentials(ca, alice)) is UNAVAILABLE
        assert await end(guarded, credentials(ca, bob)) is grpc.StatusCode.OK


@pytest.mark.parametrize("broken", ["half written", "another key", "gone"])
async def test_broken_new_files_keep_the_old_certificate(
    behind: Behind, listen: dict[str, Any], ca: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    new, cert = ca.leaf("second", **SERVED), tmp_path / "server.crt"
    async with behind(listen=listen) as (_, guarded):
        assert await shown(guarded, ca) == "CN=first"
        if broken == "gone":
            cert.unlink()
        else:
            cert.write_bytes(new.cert[:100] if broken == "half written" else new.cert)
        for _ in range(2):
            assert await shown(guarded, ca) == "CN=first"
        assert "kept the old version" in caplog.text
        assert "PRIVATE" not in caplog.text
        new.write(tmp_path, "server")
        assert await shown(guarded, ca) == "CN=second"
    caplog.clear()  # the complaint was asked for


@pytest.mark.parametrize("wrong", ["server.crt", "server.key", "ca.crt"])
async def test_files_that_cannot_be_used_at_the_start(
    behind: Behind, mutual: dict[str, Any], tmp_path: Path, wrong: str
) -> None:
    from guard.settings import ConfigError

    (tmp_path / wrong).write_bytes(b"nothing")
    with pytest.raises((ConfigError, ValueError)):
        async with behind(listen=mutual):
            pass


# --- patience


async def test_handshakes_that_are_never_finished_hold_nobody_up(
    behind: Behind, listen: dict[str, Any], ca: Authority
) -> None:
    async with behind(listen=listen) as (_, guarded), contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(wire(guarded.app.address, first=(b"\x16\x03\x01\x02\x00\x01\x00",)))
        assert await end(guarded, credentials(ca)) is grpc.StatusCode.OK


def test_handshakes_that_are_never_finished_end_nothing(
    plane: str, upstream: str, ca: Authority, listen: dict[str, Any], tmp_path: Path
) -> None:
    """gRPC frees what new certificates replace under the handshakes that begin with it, and the process ends."""
    with served.far(plane, tmp_path, upstream, answered=False, listen=listen) as far:
        host, _, port = far.address.rpartition(":")
        for wave in range(150):
            callers = [socket.create_connection((host, int(port))) for _ in range(100)]
            for caller in callers:
                caller.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            time.sleep(0.02 * (wave % 3))
            for caller in callers:
                caller.close()
            assert far.alive, wave
        with grpc.secure_channel(far.address, credentials(ca), [NAMED]) as channel:
            method: Any = channel.unary_unary(INFER)
            assert method(request(), timeout=10)


async def test_a_large_call_over_tls(behind: Behind, listen: dict[str, Any], ca: Authority) -> None:
    async with behind(listen=listen) as (_, guarded):
        async with aio.secure_channel(guarded.app.address, credentials(ca), [*LARGE, NAMED]) as channel:
            body = bytes(range(256)) * 40_000
            assert (await ask(channel, body, PASSED)).body == b"\x0a\x05other" + body
        await until(lambda: guarded.app.runtime.calls == 0)
