"""A running `guard serve` as operators see it: start, admin listeners, reload, drain. Mostly as a process."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc import aio

from guard import cli
from guard.proxy import app as app_module
from guard.proxy.app import App, check_reloadable
from guard.proxy.runtime import Runtime
from guard.settings import ConfigError
from tests.forensics import step
from tests.proxy.test_inspection import MEAN, model
from tests.proxy.world import (
    FLAGGED,
    INFER,
    SERVICE,
    STREAM,
    Ended,
    Server,
    ended,
    eventually,
    guarding,
    request,
    serving,
    settings,
    world,
)

__all__ = ["model"]  # the fixture


class Process:
    """`guard serve` with a file."""

    def __init__(self, file: Path, process: asyncio.subprocess.Process) -> None:
        self.file, self.process = file, process
        self.log: list[str] = []
        self.channel: aio.Channel | None = None

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode().rstrip())

    def said(self, pattern: str) -> "re.Match[str] | None":
        return next((found for line in self.log if (found := re.search(pattern, line))), None)

    async def hear(self, pattern: str) -> "re.Match[str]":
        try:
            await eventually(lambda: self.said(pattern), 30)
        except TimeoutError:
            raise AssertionError(f"{pattern!r} was not said: {self.log}") from None
        found = self.said(pattern)
        assert found is not None
        return found

    async def call(self, body: bytes = b"", path: str = INFER) -> Ended:
        assert self.channel is not None
        return await ended(self.channel.unary_unary(path)(body or request(), timeout=20))

    async def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)

    def page(self, path: str, token: str = "") -> tuple[int, str]:
        found = self.said(r"admin http on (\S+)")
        assert found is not None
        asked = urllib.request.Request(f"http://{found[1]}{path}", headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(asked) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@contextlib.asynccontextmanager
async def process(
    directory: Path, tree: dict[str, Any], *, program: str = "guard.cli", **environ: str
) -> AsyncIterator[Process]:
    file = directory / "guard.yaml"
    file.write_text(yaml.safe_dump(tree))
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program, "serve", "--config", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    running = Process(file, started)
    reader = asyncio.create_task(running.read())
    try:
        found = await running.hear(r"guard: listening on (\S+)")
        running.channel = aio.insecure_channel(found[1])
        yield running
        await running.channel.close()
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
        await reader


def tree(upstream: str, **changes: Any) -> dict[str, Any]:
    return {
        "listen": {"address": "127.0.0.1:0"},
        "upstream": {"address": upstream},
        "models": [{"name": "m"}],
        "admin": {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"},
        "audit": {"file": "/dev/null"},
        **changes,
    }


async def test_a_process_from_start_to_drain(tmp_path: Path) -> None:
    """Start, admin pages, a good reload, a bad one, one that needs a restart, SIGTERM under a call in flight."""
    token = "a-token-for-operators"
    async with serving() as server:
        begun = asyncio.Event()
        go = asyncio.Event()

        async def infer(body: bytes, context: Any) -> bytes:
            begun.set()
            await go.wait()
            return await server.plain(body, context)

        secret = tmp_path / "secret"
        secret.write_text("0123456789abcdef")
        settled = tree(server.address, secret_file=str(secret))
        async with process(tmp_path, settled, GUARD_ADMIN_TOKEN=token) as guard:
            assert (await guard.call()).body
            assert (await guard.call(request(model="n"))).code is grpc.StatusCode.NOT_FOUND
            await eventually(lambda: guard.page("/readyz")[0] == 200)
            assert guard.page("/config")[0] == 401
            assert '"m"' in guard.page("/config", token)[1]
            assert token not in guard.page("/config", token)[1]
            assert "guard_uninspected_total" in guard.page("/metrics")[1]

            guard.file.write_text(yaml.safe_dump({**settled, "unlisted_models": "allow"}))
            guard.process.send_signal(signal.SIGHUP)
            await guard.hear("settings reloaded")
            assert (await guard.call(request(model="n"))).details.startswith("Request for unknown model")

            guard.file.write_text(yaml.safe_dump({**settled, "no_such_key": 1}))
            guard.process.send_signal(signal.SIGHUP)
            await guard.hear("settings not reloaded: no_such_key: unknown key")
            guard.file.write_text(yaml.safe_dump({**settled, "history": {"max_entries": 7}}))
            guard.process.send_signal(signal.SIGHUP)
            await guard.hear("settings not reloaded: history: changed: this needs a restart")
            assert (await guard.call(request(model="n"))).details.startswith("Request for unknown model")
            pages = guard.page("/metrics")[1]
            assert 'guard_config_reloads_total{result="done"} 1.0' in pages
            assert 'guard_config_reloads_total{result="refused"} 2.0' in pages

            server.infer = infer
            call = asyncio.create_task(guard.call())
            await begun.wait()
            guard.process.send_signal(signal.SIGTERM)
            await guard.hear("draining")
            assert guard.page("/readyz")[0] == 503
            assert (await guard.call(b"\x0a\x00", SERVICE + "ServerReady")).body == b""
            await asyncio.sleep(app_module.LINGER_S + 0.2)
            go.set()
            assert (await call).body
            assert await asyncio.wait_for(guard.process.wait(), 30) == 0
        assert not guard.said("Traceback")
        assert not guard.said(token)


async def test_no_call_is_lost_in_a_drain_under_load(tmp_path: Path) -> None:
    """Forty callers that never pause. What was accepted is answered; after the end the connection is refused."""
    async with serving() as server:

        async def infer(body: bytes, context: Any) -> bytes:
            await asyncio.sleep(0.001)
            return await server.plain(body, context)

        server.infer = infer
        async with process(tmp_path, tree(server.address, limits={"drain_s": 2})) as guard:
            ends: list[Ended] = []
            address = (await guard.hear(r"listening on (\S+)"))[1]

            async def caller() -> None:
                async with aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                    while True:
                        one = await ended(channel.unary_unary(INFER)(request(), timeout=20))
                        if one.code is not grpc.StatusCode.OK:
                            ends.append(one)
                            return

            callers = [asyncio.create_task(caller()) for _ in range(40)]
            await eventually(lambda: len(server.calls()) > 50)
            guard.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*callers), 30)
            assert await asyncio.wait_for(guard.process.wait(), 30) == 0
            lost = [end.details for end in ends if "refused" not in end.details]
            assert not lost


async def test_a_drain_ends_calls_that_take_too_long() -> None:
    async with serving() as server:

        async def infer(body: bytes, context: Any) -> bytes:
            await asyncio.sleep(60)
            return b""

        server.infer = infer
        async with guarding(settings(server.address, limits={"drain_s": 0.4})) as guarded:
            call = asyncio.create_task(guarded.unary(request()))
            await eventually(server.calls)
            await guarded.app.drain()
            assert (await call).code is not grpc.StatusCode.OK
            await eventually(lambda: server.calls()[0].cancelled)


# --- reload, inside this process


class Reloading:
    """Guard whose settings a test changes."""

    def __init__(self, app: App, channel: aio.Channel, next_: dict[str, Any]) -> None:
        self.app, self.channel, self.next = app, channel, next_


async def test_a_reload_keeps_upstreams_that_did_not_change_and_calls_in_flight(model: Any, world_stages: None) -> None:
    held, begun = asyncio.Event(), asyncio.Event()
    async with serving() as first, serving() as second:
        current = settings(first.address, limits={"drain_s": 5})
        app = await App.start(current, lambda: current, None)
        async with aio.insecure_channel(app.address) as channel:

            async def infer(body: bytes, context: Any) -> bytes:
                begun.set()
                await held.wait()
                return await first.plain(body, context)

            first.infer = infer
            call = asyncio.create_task(ended(channel.unary_unary(INFER)(request(), timeout=20)))
            await begun.wait()
            upstream, runtime = app.runtime.default.upstream, app.runtime

            current = settings(first.address, limits={"drain_s": 5}, **model(MEAN))
            assert await app.reload()
            assert app.runtime is not runtime
            assert app.runtime.default.upstream is upstream
            flagged = await ended(channel.unary_unary(INFER)(request(FLAGGED), timeout=20))
            assert flagged.code is grpc.StatusCode.PERMISSION_DENIED

            current = settings(second.address, limits={"drain_s": 5})
            assert await app.reload()
            assert (await ended(channel.unary_unary(INFER)(request(), timeout=20))).code is grpc.StatusCode.OK
            assert len(second.calls()) == 1
            held.set()
            assert (await call).body  # over an upstream that is no longer in the settings
            await eventually(lambda: not connected(upstream))
        current = settings(second.address, limits={"drain_s": 0})
        await app.drain()


def connected(upstream: Any) -> bool:
    try:
        return upstream.connection is not None
    except grpc.aio.UsageError:
        return False


async def test_a_reload_that_fails_half_way_changes_nothing(model: Any, tmp_path: Path, world_stages: None) -> None:
    async with serving() as server:
        current = settings(server.address)
        app = await App.start(current, lambda: current, None)
        runtime = app.runtime
        broken = model(MEAN)
        (Path(broken["models"][0]["profile"]) / "calibration.npz").write_bytes(b"")
        for wrong in (
            {**broken},
            {"models": [{"name": "m"}, {"name": "e", "embedded": {"file": str(tmp_path / "none.onnx")}}]},
            {"identity": {"chain": [{"kind": "jwt", "keys_file": str(tmp_path / "none.pem")}]}},
            {"audit": {"file": str(tmp_path / "no" / "such")}},
        ):
            current = settings(server.address, **wrong)
            assert not await app.reload()
            assert app.runtime is runtime
        async with aio.insecure_channel(app.address) as channel:
            assert (await ended(channel.unary_unary(INFER)(request(), timeout=20))).body
        await app.drain()


def left() -> tuple[int, int]:
    """The threads of deliveries, and open files."""
    ours = ("guard-spans", "guard-audit", "guard-quarantine")
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(ours)]
    return len(threads), len(list(Path("/proc/self/fd").iterdir()))


async def test_a_refused_reload_leaves_nothing_behind(tmp_path: Path, world_stages: None) -> None:
    """No thread, no open file: each part that comes before the one that cannot be made is another one."""
    (tmp_path / "short.key").write_text("short")
    to = {"url": "http://127.0.0.1:9"}
    sinks = [{"kind": "file", "path": str(tmp_path / name)} for name in ("a", "no/b")]
    sinks[1]["name"] = "b"
    no_audit = {"file": None, "sinks": sinks}
    short = {"file": str(tmp_path / "a"), "chain_key_file": str(tmp_path / "short.key")}
    async with serving() as server, serving() as other:
        current = settings(server.address)
        app = await App.start(current, lambda: current, None)

        async def refused(count: int) -> tuple[int, int]:
            nonlocal current
            for number in range(count):
                for audit in (no_audit, short, {"file": str(tmp_path / "no" / "such")}):
                    quarantine = {"url": str(tmp_path / f"q{number}")}
                    current = settings(other.address, tracing={"to": to}, audit=audit, quarantine=quarantine)
                    assert not await app.reload()
            return left()

        try:
            threads, files = await refused(3)
            assert threads == 1  # of the audit log in force
            threads, then = await refused(20)
            assert threads == 1
            assert then < files + 10  # gRPC opens and closes some of its own
        finally:
            await app.drain()


async def test_a_reload_takes_another_chain_key(tmp_path: Path, world_stages: None) -> None:
    """Of another file; a new text in the same one waits for a start."""
    old, new, log = tmp_path / "old.key", tmp_path / "new.key", tmp_path / "audit.jsonl"
    old.write_text("the old key of the tests")
    new.write_text("the new key of the tests")
    async with serving() as server:

        def with_key(file: Path) -> Any:
            return settings(server.address, audit={"file": str(log), "chain_key_file": str(file)})

        current = with_key(old)
        app = await App.start(current, lambda: current, None)
        app.runtime.audit.record(step(4))
        audit = app.runtime.audit
        assert await app.reload()
        assert app.runtime.audit is audit
        current = with_key(new)
        assert await app.reload()
        app.runtime.audit.record(step(4))
        await app.drain()
    command = ["audit", "verify", str(log), "--whole"]
    assert cli.main([*command, "--key-file", str(old), "--key-file", str(new)]) == 0
    assert cli.main([*command, "--key-file", str(new)]) == 1
    assert len(log.read_text().splitlines()) == 6


async def test_a_drain_waits_for_what_a_reload_is_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a chained log, say, is still to be written."""
    retire, retired = Runtime.retire, []

    async def slowly(self: Runtime, within_s: float = 5.0) -> None:
        await asyncio.sleep(1.0 if self is former else 0.0)
        await retire(self, within_s)
        retired.append(self)

    monkeypatch.setattr(Runtime, "retire", slowly)
    async with serving() as server:
        current = settings(server.address)
        app = await App.start(current, lambda: current, None)
        former = app.runtime
        current = settings(server.address, unlisted_models="allow")
        assert await app.reload()
        await eventually(lambda: app._retiring)
        await app.drain()
        assert set(map(id, retired)) == {id(former), id(app.runtime)}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"listen": {"address": "127.0.0.1:1"}}, "listen"),
        ({"admin": {"http": "127.0.0.1:1"}}, "admin"),
        ({"history": {"ttl_s": 1}}, "history"),
        ({"limits": {"max_request_bytes": 2048}}, "limits.max_request_bytes"),
        ({"secret_file": "/x"}, "secret_file"),
    ],
)
def test_what_needs_a_restart_is_named(change: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(path)}: changed"):
        check_reloadable(settings("h:1"), settings("h:1", **change))


# --- start


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"listen": {"address": "256.0.0.1:1"}}, "listen.address"),
        ({"models": [{"name": "e", "embedded": {"file": "/none.onnx"}}]}, "embedded.file"),
        ({"admin": {"http": "nowhere"}}, "admin.http"),
    ],
)
async def test_a_start_that_fails_says_where(changes: dict[str, Any], path: str) -> None:
    made = settings("127.0.0.1:1", **changes)
    with pytest.raises(ConfigError, match=rf"^{re.escape(path)}"):
        await App.start(made, lambda: made, None)


async def test_a_taken_address_is_an_error() -> None:
    async with world() as (_, guarded):
        made = settings("127.0.0.1:1", listen={"address": guarded.app.address})
        with pytest.raises(ConfigError, match="cannot listen"):
            await App.start(made, lambda: made, None)


async def test_a_short_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARD_SECRET", "short")
    made = settings("127.0.0.1:1")
    with pytest.raises(ConfigError, match="less than 16 bytes"):
        await App.start(made, lambda: made, None)


async def test_the_admin_api_is_served_with_a_token_only() -> None:
    async with serving() as server:
        made = settings(server.address, admin={"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"})
        async with guarding(made) as guarded:
            assert set(guarded.app.admin) == {"http"}
        async with guarding(made, token="t" * 20) as guarded:
            assert set(guarded.app.admin) == {"http", "grpc"}
            assert isinstance(server, Server)
            assert STREAM
