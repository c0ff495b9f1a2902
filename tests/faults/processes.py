"""Processes end: a worker is killed, Guard is killed or told to stop under load; certificates change or expire."""

import asyncio
import json
import os
import re
import signal
import ssl
import time
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from tests.faults import stages
from tests.faults.matrix import codes, row, told
from tests.proxy import certs
from tests.proxy.test_app import Process, process, tree
from tests.proxy.world import INFER, Guarded, ended, eventually, guarding, profile, request, serving, settings
from tests.servers.process import workers_of

PART = "process"
LOADS = 16
HANGS_S = 10.0


async def _load(address: str, ends: list[str], stop: asyncio.Event) -> None:
    """Calls on a connection of their own until one finds nobody there."""
    async with aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        while not stop.is_set():
            end = await ended(channel.unary_unary(INFER)(request(), timeout=20))
            gone = end.code is grpc.StatusCode.UNAVAILABLE and "refused" in end.details
            ends.append("gone" if gone else end.code.name)
            if gone:
                return
            if end.code is not grpc.StatusCode.OK:  # who asks again at once is told of the same
                await asyncio.sleep(0.2)


async def address_of(guard: Process) -> str:
    return (await guard.hear(r"guard: listening on (\S+)"))[1]


@row(PART, "SIGTERM under load", "`drain_s: 5`", "every call that was accepted is answered")
async def sigterm(at: Path) -> str:
    async with serving() as server, process(at, tree(server.address, limits={"drain_s": 5})) as guard:
        ends: list[str] = []
        stop, address = asyncio.Event(), await address_of(guard)
        loads = [asyncio.ensure_future(_load(address, ends, stop)) for _ in range(LOADS)]
        await eventually(lambda: len(ends) > 100, 30)
        guard.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*loads), 60)
        assert await asyncio.wait_for(guard.process.wait(), 30) == 0
        assert set(ends) == {"OK", "gone"}
        return f"{ends.count('OK')} OK, none lost; then connections are refused"


@row(PART, "SIGTERM while a detector hangs", "`drain_s: 0`", "the process ends all the same")
async def sigterm_hanging(at: Path) -> str:
    limits = {"inspection_timeout_s": 0.3, "drain_s": 0}
    faulty = {"stage": "test_faulty", "options": {"how": "hangs"}}
    model = {"name": "m", "profile": stages.profile(at / "profile"), "mode": "enforce", "detectors": [faulty]}
    async with serving() as server:
        settled = tree(server.address, models=[model], limits=limits)
        async with process(at, settled, program="tests.faults.hanging") as guard:
            end, began = await guard.call(), time.monotonic()
            assert end.code is grpc.StatusCode.OK
            assert await guard.end() == 0
            took = time.monotonic() - began
    assert took < HANGS_S
    return "ended with 0 at once, its detector still hanging"


@row(
    PART,
    "a worker is killed (SIGKILL) under load",
    "`workers: 2`",
    "its calls fail, those of the other do not; it is replaced",
)
async def worker_killed(at: Path) -> str:
    async with serving() as server, process(at, tree(server.address, workers=2, limits={"drain_s": 2})) as guard:
        ends: list[str] = []
        stop, address = asyncio.Event(), await address_of(guard)
        loads = [asyncio.ensure_future(_load(address, ends, stop)) for _ in range(LOADS)]
        await eventually(lambda: len(ends) > 100, 30)
        killed = min(workers_of(guard.process.pid))
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: guard.said("ended with -9"), 60)
        await eventually(lambda: len(workers_of(guard.process.pid)) == 2, 60)
        before = ends.count("OK")
        await eventually(lambda: ends.count("OK") > before + 50, 60)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*loads), 60)
        bad = [end for end in ends if end != "OK"]
        assert set(bad) <= {"UNAVAILABLE"}
        assert len(bad) < len(ends) / 2
        return f"{len(bad)} of {len(ends)} UNAVAILABLE, of {LOADS} connections; replaced and counted"


@row(PART, "Guard is killed (SIGKILL)", "`audit.file`", "what was counted as written is on the disk, line by line")
async def killed_audit(at: Path) -> str:
    log, made = at / "audit.jsonl", profile(at / "profile")
    model = {"name": "m", "profile": made, "validation": {"bounds": False}}
    settled = tree("", models=[model], audit={"file": str(log), "sample_allowed": 1.0})
    async with serving() as server:
        settled["upstream"] = {"address": server.address}
        async with process(at, settled) as guard:
            for _ in range(30):
                assert (await guard.call()).body
            for _ in range(300):
                page = (await asyncio.to_thread(guard.page, "/metrics"))[1]
                written = re.search(r'^guard_audit_events_total\{outcome="written"\} (\S+)', page, re.MULTILINE)
                if written and float(written[1]) >= 30:
                    break
                await asyncio.sleep(0.1)
            assert written
            guard.process.kill()
            await guard.process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    decided = [line for line in lines if line.get("decision_id")]
    assert len(decided) >= 30
    return f"{len(decided)} of 30 decisions on the disk, every line whole"


def _tls(at: Path, ca: certs.Authority, name: str, **options: Any) -> dict[str, str]:
    ca.leaf(name, dns=("localhost",), **options).write(at, "server")
    return {"cert_file": str(at / "server.crt"), "key_file": str(at / "server.key")}


async def _common_name(guarded: Guarded, ca: certs.Authority) -> str:
    """Of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cadata=ca.pem.decode())
    context.set_alpn_protocols(["h2"])
    port = guarded.app.address.rpartition(":")[2]
    _, writer = await asyncio.open_connection("localhost", int(port), ssl=context)
    subject = writer.get_extra_info("ssl_object").getpeercert()["subject"]
    writer.close()
    return str(subject[0][0][1])


async def _secure(address: str, ca: certs.Authority) -> str:
    port = address.rpartition(":")[2]
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca.pem), options) as channel:
        return (await ended(channel.unary_unary(INFER)(request(), timeout=10))).code.name


@row("certificates", "are rotated on the disk", "`listen.tls`", "new connections see the new one; no call fails")
async def rotated(at: Path) -> str:
    ca = certs.Authority()
    files = _tls(at, ca, "first")
    async with serving() as server:
        made = settings(server.address, listen={"address": "localhost:0", "tls": files})
        async with guarding(made) as guarded:
            ends = [await _secure(guarded.app.address, ca)]
            assert await _common_name(guarded, ca) == "first"
            _tls(at, ca, "second")
            async with asyncio.timeout(30):
                while await _common_name(guarded, ca) != "second":
                    await asyncio.sleep(0.05)
            ends.append(await _secure(guarded.app.address, ca))
            assert ends == ["OK", "OK"]
            return "the second certificate is shown; calls OK before and after"


@row(
    "certificates",
    "are replaced by one that has expired",
    "`listen.tls`",
    "callers refuse it (UNAVAILABLE), Guard serves on; mended by a good one",
)
async def expired(at: Path) -> str:
    ca = certs.Authority()
    files = _tls(at, ca, "first")
    async with serving() as server:
        made = settings(server.address, listen={"address": "localhost:0", "tls": files})
        async with guarding(made) as guarded:
            assert await _secure(guarded.app.address, ca) == "OK"
            _tls(at, ca, "expired", expired=True)
            async with asyncio.timeout(30):
                while (end := await _secure(guarded.app.address, ca)) == "OK":
                    await asyncio.sleep(0.05)
            _tls(at, ca, "third")
            async with asyncio.timeout(30):
                while await _secure(guarded.app.address, ca) != "OK":
                    await asyncio.sleep(0.05)
            return f"{end} while it was there; OK with the next"


@row(
    "certificates",
    "the upstream's is signed by another authority",
    "`upstream.tls`",
    "UNAVAILABLE; nothing is sent to it",
)
async def stranger(at: Path) -> str:
    ca, other = certs.Authority(), certs.Authority("another")
    pair = other.leaf("upstream", dns=("localhost",))
    server = aio.server()
    taken = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            taken.append(details.method)

    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(pair.key, pair.cert)]))
    await server.start()
    try:
        (at / "ca.crt").write_bytes(ca.pem)
        made = settings(f"localhost:{port}")
        tls = {"ca_file": str(at / "ca.crt")}
        made = settings(f"localhost:{port}", upstream={"tls": tls})
        async with guarding(made) as guarded:
            ends = await codes(guarded, 2, timeout=5)
            assert set(ends) == {"UNAVAILABLE"}
            assert not taken
            return told(ends)
    finally:
        await server.stop(None)
