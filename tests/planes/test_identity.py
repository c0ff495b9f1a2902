"""What the listener hands on, of which identities, cohorts and the server's metadata are made: the same everywhere."""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from guard.proxy.gate import Gate
from guard.proxy.seam import Call
from tests.planes.at import TALK, ask, talk
from tests.planes.frames import call as frames_call
from tests.planes.frames import wire
from tests.proxy.world import INFER, STREAM, profile, request

Behind = Callable[..., Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the listener hands to the gate."""
    made: list[Call] = []
    unary, stream = Gate.unary, Gate.stream

    async def seen_unary(self: Gate, call: Call, exchange: Any) -> None:
        made.append(call)
        await unary(self, call, exchange)

    def seen_stream(self: Gate, call: Call, bodies: AsyncIterator[bytes]) -> Any:
        made.append(call)
        return stream(self, call, bodies)

    monkeypatch.setattr(Gate, "unary", seen_unary)
    monkeypatch.setattr(Gate, "stream", seen_stream)
    return made


@pytest.mark.parametrize("path", [INFER, STREAM, TALK])
async def test_a_call_as_the_gate_sees_it(behind: Behind, calls: list[Call], path: str) -> None:
    sent = (("x-key", "1"), ("x-key", "2"), ("x-bin", b"\x00\xff"), ("x-blank", ""), ("x-blanks", "a  b"))
    async with behind(methods={"allow": [TALK]}) as (_, guarded):
        await (ask if path == INFER else talk)(guarded.channel, request(), path=path, metadata=sent, timeout=7)
    (made,) = calls
    assert made.path == path
    assert [(key, value) for key, value in made.metadata if key.startswith("x-")] == list(sent)
    others = {key for key, _ in made.metadata if not key.startswith("x-")}
    assert "user-agent" in others
    assert others <= {"user-agent", "host", "te", "content-type", "grpc-accept-encoding", "accept-encoding"}
    assert 6 < made.timeout_s <= 7.1
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d{1,5}", made.peer.address)
    assert not set(made.peer.auth) & {"x509_common_name", "x509_subject_alternative_name", "peer_spiffe_id"}


async def test_without_a_deadline_there_is_none(behind: Behind, calls: list[Call]) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        caller.send(frames_call(1, INFER.encode(), request()))
        assert (await caller.ended(1)).grpc == 0
    assert calls[0].timeout_s is None or calls[0].timeout_s > 1e6


async def test_the_peer_is_the_caller_and_stays_the_same(behind: Behind, calls: list[Call]) -> None:
    async with behind() as (_, guarded), wire(guarded.app.address) as caller:
        for number in (1, 3):
            caller.send(frames_call(number, INFER.encode(), request()))
            assert (await caller.ended(number)).grpc == 0
        host, port = caller.writer.get_extra_info("sockname")
    assert [call.peer.address for call in calls] == [f"ipv4:{host}:{port}"] * 2


async def test_a_peer_over_ipv6(behind: Behind, calls: list[Call]) -> None:
    try:
        async with behind(listen={"address": "[::1]:0"}) as (_, guarded):
            assert (await ask(guarded.channel, request())).body
            known = guarded.app.runtime.identity.caller(calls[0])
            assert known.id == "peer:::/64"
    except OSError:
        pytest.skip("there is no IPv6")
    assert re.fullmatch(r"ipv6:(\[::1\]|%5B::1%5D):\d+", calls[0].peer.address)


async def test_a_listener_on_every_address(behind: Behind, calls: list[Call]) -> None:
    async with behind(listen={"address": "[::]:0"}) as (_, guarded):
        port = guarded.app.address.rpartition(":")[2]
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await ask(channel, request())).body
        known = guarded.app.runtime.identity.caller(calls[0])
        assert known.id == "peer:127.0.0.1"


async def test_a_peer_on_a_unix_socket(behind: Behind, calls: list[Call], tmp_path: Path) -> None:
    async with behind(listen={"address": f"unix:{tmp_path}/g"}) as (_, guarded):
        assert (await ask(guarded.channel, request())).body
        assert guarded.app.runtime.identity.caller(calls[0]).id == "peer:unix"
    assert calls[0].peer.address.startswith("unix:")


KEY = "k" * 40
CHAINS: list[tuple[dict[str, Any], tuple[tuple[str, str], ...], str | None]] = [
    ({"kind": "peer"}, (), "peer:127.0.0.1"),
    ({"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]}, (("x-user", " ann "),), "header:ann"),
    ({"kind": "header", "header": "x-user", "trusted_peers": ["10.0.0.0/8"]}, (("x-user", "ann"),), None),
    (
        {"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]},
        (("x-user", "ann"), ("x-user", "bob")),
        None,
    ),
    ({"kind": "api_key", "header": "x-api-key"}, (("x-api-key", KEY), ("x-api-key", KEY)), None),
    ({"kind": "api_key", "header": "x-api-key"}, (("x-api-key", KEY),), "key:"),
    ({"kind": "mtls_subject"}, (("x509_common_name", "alice"),), None),
]


@pytest.mark.parametrize(("source", "metadata", "expected"), CHAINS)
async def test_identities(
    behind: Behind, calls: list[Call], source: dict[str, Any], metadata: Any, expected: str | None
) -> None:
    async with behind(identity={"chain": [source], "required": True}) as (server, guarded):
        reply = await ask(guarded.channel, request(), metadata=metadata)
        known = guarded.app.runtime.identity.caller(calls[0])
        if expected is None:
            assert known is None
            assert reply.end == ("UNAUTHENTICATED", "the caller is not known")
            assert not server.calls()
        else:
            assert known.id.startswith(expected)
            assert reply.code is grpc.StatusCode.OK


async def test_a_known_key_by_name(behind: Behind, calls: list[Call], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ann {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    source = {"kind": "api_key", "header": "authorization", "known_file": str(file)}
    async with behind(identity={"chain": [source], "required": True}) as (_, guarded):
        assert (await ask(guarded.channel, request(), metadata=(("authorization", KEY),))).body
        assert guarded.app.runtime.identity.caller(calls[0]).id == "key:ann"
        stranger = await ask(guarded.channel, request(), metadata=(("authorization", "no"),))
        assert stranger.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.usefixtures("world_stages")
@pytest.mark.parametrize("path", [INFER, STREAM])
async def test_the_audit_names_the_caller(behind: Behind, tmp_path: Path, path: str) -> None:
    changes: dict[str, Any] = {
        "identity": {
            "chain": [{"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.1/32"]}, {"kind": "peer"}]
        },
        "audit": {"file": str(tmp_path / "audit.jsonl"), "sample_allowed": 1.0},
        "models": [{"name": "m", "profile": profile(tmp_path / "p"), "detectors": [{"stage": "test_mean"}]}],
    }
    call = ask if path == INFER else talk
    async with behind(**changes) as (_, guarded):
        ids = []
        for metadata in ((("x-user", "ann"),), ()):
            reply = await call(guarded.channel, request(), path=path, metadata=metadata)
            ids.append(dict(reply.trailing).get("guard-decision-id"))
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [event["caller"] for event in events] == ["header:ann", "peer:127.0.0.1"]
    assert {event["action"] for event in events} == {"allow"}
    if path == STREAM:
        assert [event["decision_id"] for event in events] == [f"{one}.1" for one in ids]


async def test_joined_values_are_not_taken_apart(behind: Behind, calls: list[Call]) -> None:
    """`a, b` is one value of ASCII metadata; of binary metadata gRPC lets it stand for two."""
    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(frames_call(1, INFER.encode(), request(), (b"x-user", b"ann, bob"), (b"x-user", b"eve")))
        assert (await caller.ended(1)).grpc == 0
        assert [value for key, value in calls[0].metadata if key == "x-user"] == ["ann, bob", "eve"]
        assert [value for key, value in server.calls()[0].metadata if key == "x-user"] == ["ann, bob", "eve"]


@pytest.mark.parametrize("value", [b"AAH/", b"AAE", b"AAE=", b""])
async def test_binary_values_with_and_without_padding(behind: Behind, calls: list[Call], value: bytes) -> None:
    import base64

    async with behind() as (server, guarded), wire(guarded.app.address) as caller:
        caller.send(frames_call(1, INFER.encode(), request(), (b"x-bin", value)))
        assert (await caller.ended(1)).grpc == 0
        plain = base64.b64decode(value + b"=" * (-len(value) % 4))
        assert [v for key, v in calls[0].metadata if key == "x-bin"] == [plain]
        assert [v for key, v in server.calls()[0].metadata if key == "x-bin"] == [plain]
