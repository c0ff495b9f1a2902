"""Which plane carries calls, and what the listener and the upstream take for an address."""

import asyncio
import builtins
import contextlib
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import uvloop

from guard.proxy import plane
from guard.proxy.app import App, check_reloadable
from guard.proxy.fast import library, listener
from guard.proxy.fast.listener import Listener
from guard.proxy.fast.upstream import FastUpstream, target
from guard.proxy.server import Exchange
from guard.proxy.upstream import RemoteUpstream
from guard.settings import ConfigError, Limits, Listen
from tests.proxy.certs import Authority
from tests.proxy.world import INFER, eventually, guarding, request, serving, settings


async def test_what_is_asked_for_is_used_and_shown() -> None:
    async with serving() as server:
        async with guarding(settings(server.address, plane="fast")) as guarded:
            assert (await guarded.unary(request())).body
            assert guarded.count("guard_plane", plane="fast") == 1
            assert isinstance(guarded.app.runtime.default.upstream, FastUpstream)
            assert isinstance(guarded.app._server, Listener)
        async with guarding(settings(server.address)) as guarded:
            assert guarded.count("guard_plane", plane="grpcio") == 1
            assert isinstance(guarded.app.runtime.default.upstream, RemoteUpstream)


async def test_where_it_cannot_be_used_grpcio_is_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "unusable", "libnghttp2.so.14 cannot be loaded")
    async with serving() as server, guarding(settings(server.address, plane="fast")) as guarded:
        assert (await guarded.unary(request())).body
        assert guarded.count("guard_plane", plane="grpcio") == 1
    assert "plane: fast cannot be used, grpcio is: libnghttp2.so.14 cannot be loaded" in caplog.text
    assert plane.new_loop(settings("127.0.0.1:1", plane="fast")) is None


def test_the_loop_is_uvloops_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert plane.new_loop(settings("127.0.0.1:1")) is None
    assert plane.new_loop(settings("127.0.0.1:1", plane="fast")) is uvloop.new_event_loop
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "uvloop":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert plane.new_loop(settings("127.0.0.1:1", plane="fast")) is None
    assert "uvloop is not installed" in caplog.text


def test_a_change_needs_a_restart() -> None:
    with pytest.raises(ConfigError, match="plane: changed"):
        check_reloadable(settings("127.0.0.1:1"), settings("127.0.0.1:1", plane="fast"))


@pytest.mark.parametrize(
    ("address", "host", "port", "authority"),
    [
        ("localhost:80", "localhost", 80, "localhost:80"),
        ("10.0.0.1:80", "10.0.0.1", 80, "10.0.0.1:80"),
        ("[::1]:80", "::1", 80, "[::1]:80"),
        ("dns:///a.b:80", "a.b", 80, "a.b:80"),
        ("dns:a.b:80", "a.b", 80, "a.b:80"),
        ("ipv4:10.0.0.1:80", "10.0.0.1", 80, "10.0.0.1:80"),
        ("ipv6:[::1]:80", "::1", 80, "[::1]:80"),
        ("ipv6:%5B::1%5D:80", "::1", 80, "[::1]:80"),
        ("a.b", "a.b", 443, "a.b"),
    ],
)
def test_names_of_servers(address: str, host: str, port: int, authority: str) -> None:
    found = target(address)
    assert (found.host, found.port, found.path, found.authority) == (host, port, None, authority)


def test_names_of_sockets() -> None:
    assert (target("unix:/a/b").path, target("unix:///a/b").path, target("unix:a").path) == ("/a/b", "/a/b", "a")
    assert target("unix:/a").authority == "localhost"


@pytest.mark.parametrize("address", ["", ":80", "a:0", "a:99999", "a:b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        target(address)


class Open:
    """A gate that is never asked."""

    async def unary(self, call: Any, exchange: Exchange) -> None:
        raise NotImplementedError

    def stream(self, call: Any, bodies: Any) -> Any:
        raise NotImplementedError


async def bound(address: str, **limits: int) -> tuple[Listener, str]:
    made, where = listener.make_server(Open(), Listen(address=address), Limits(**limits))
    await made.start()
    return made, where


async def test_a_port_is_taken_once() -> None:
    made, where = await bound("127.0.0.1:0")
    with pytest.raises(ConfigError, match="cannot listen"):
        listener.make_server(Open(), Listen(address=where), Limits())
    await made.stop(0)
    again, _ = await bound(where)
    await again.stop(0)
    for wrong in ("127.0.0.1", "nowhere.invalid:1", "127.0.0.1:x"):
        with pytest.raises(ConfigError, match="cannot listen"):
            listener.make_server(Open(), Listen(address=wrong), Limits())


async def test_a_socket_is_taken_over_from_a_process_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "guard.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    made, where = await bound(f"unix:{path}")
    assert where == f"unix:{path}"
    with pytest.raises(ConfigError, match="cannot listen"):
        await bound(f"unix:{path}")
    await made.stop(0)
    assert not path.exists()
    path.write_text("a file of somebody's")
    with pytest.raises(ConfigError, match="cannot listen"):
        await bound(f"unix:{path}")
    assert path.read_text() == "a file of somebody's"


async def test_newcomers_take_the_place_of_who_has_no_call() -> None:
    made, where = await bound("127.0.0.1:0", max_connections=2)
    held = [await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2])) for _ in range(2)]
    for reader, _ in held:
        assert await reader.read(9)
    await eventually(lambda: len(made._connections) == 2)
    oldest = min(made._connections, key=lambda one: one.began)
    oldest.used = oldest.began + 1.0  # it had a call, the other had none
    third, writer = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
    assert await third.read(9)
    with contextlib.suppress(ConnectionResetError):
        while await held[1][0].read(100):
            pass
    assert oldest in made._connections
    writer.close()
    await made.stop(0)


async def test_connections_past_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener.Listener, "_make_room", lambda _: False)  # all have calls
    made, where = await bound("127.0.0.1:0", max_connections=2)
    held = [await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2])) for _ in range(2)]
    for reader, _ in held:
        assert await reader.read(9)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
    assert await reader.read() == b""
    writer.close()
    held[0][1].close()
    await eventually(lambda: len(made._connections) == 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
    assert await reader.read(9)
    await made.stop(0)
    assert await reader.read() is not None


async def test_a_caller_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guard.proxy.fast.callers.GREETING_S", 0.0)
    monkeypatch.setattr(listener, "SWEEP_S", 0.05)
    made, where = await bound("127.0.0.1:0")
    reader, _ = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
    async with asyncio.timeout(5):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(100):
                pass
    await made.stop(0)


async def test_an_idle_caller_is_told_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guard.proxy.fast.callers.IDLE_S", 0.2)
    monkeypatch.setattr(listener, "SWEEP_S", 0.05)
    async with serving() as server, guarding(settings(server.address, plane="fast")) as guarded:
        assert (await guarded.unary(request())).body
        await eventually(lambda: not guarded.app._server._connections)
        assert (await guarded.unary(request())).body  # on a new connection


async def test_files_that_cannot_be_used_are_named() -> None:
    made = settings("127.0.0.1:1", plane="fast", listen={"tls": {"cert_file": "/no", "key_file": "/no"}})
    with pytest.raises(ConfigError, match="/no: cannot read"):
        await App.start(made, lambda: made, None)


async def test_handshakes_that_fail_hold_no_connection(tmp_path: Path) -> None:
    cert, key = Authority().leaf("guard", dns=("localhost",)).write(tmp_path, "server")
    tls = {"cert_file": cert, "key_file": key}
    made, where = listener.make_server(
        Open(), Listen.model_validate({"address": "127.0.0.1:0", "tls": tls}), Limits(max_connections=3)
    )
    await made.start()
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 5)
        await reader.read()
        writer.close()
        await eventually(lambda: not made._connections)
    await made.stop(0)


async def test_a_name_that_cannot_be_looked_up_is_away_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    made = settings(f"{'a' * 70}.example:80", plane="fast")
    assert made.upstream is not None
    upstream = FastUpstream(made.upstream, made.limits)
    for _ in range(2):
        assert (await upstream.unary("/a/B", b"", (), 5.0)).details == "upstream unavailable"
    await asyncio.sleep(0.4)
    assert caplog.text.count("no connection can be made") > 1
    await upstream.close()


async def test_a_server_that_is_away_fails_calls_at_once_and_is_found_when_it_comes() -> None:
    async with serving() as server:
        address = server.address
    made = settings(address, plane="fast")
    assert made.upstream is not None
    upstream = FastUpstream(made.upstream, made.limits)
    assert upstream.connection is None
    async with asyncio.timeout(2):
        for _ in range(3):
            assert (await upstream.unary("/a/B", b"", (), 30.0)).code == 14
    async with serving(address=address):
        await eventually(lambda: upstream.connection == 1)
        assert (await upstream.unary(INFER, request(), (), 5.0)).code == 0
    await eventually(lambda: upstream.connection is None)
    await upstream.close()
    assert (await upstream.unary(INFER, request(), (), 5.0)).code == 14
