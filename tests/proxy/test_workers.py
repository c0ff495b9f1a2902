"""`guard serve` with two workers, as a process: one port, one set of metrics, one drain, one reload, one claim."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc import aio

from guard import config
from guard.client import GuardClient
from guard.proxy import supervisor
from guard.proxy.claim import claim
from guard.proxy.fast import library
from guard.settings import ConfigError
from tests.proxy.test_app import Process, process, tree
from tests.proxy.world import INFER, Ended, ended, eventually, profile, request, serving
from tests.servers.process import workers_of

TOKEN = "a-token-for-operators"


def two(address: str, **changes: Any) -> dict[str, Any]:
    return tree(address, workers=2, limits={"drain_s": 2}, **changes)


async def anew(guard: Process, body: bytes = b"", timeout_s: float = 20) -> Ended:
    """A call on a connection of its own: of twenty, one worker gets all once in half a million times."""
    found = guard.said(r"listening on (\S+)")
    assert found is not None
    async with aio.insecure_channel(found[1], [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return await ended(channel.unary_unary(INFER)(body or request(), timeout=timeout_s))


async def soon(what: Callable[[], Any]) -> Any:
    """What a page shows in the end; pages are read in a thread."""
    for _ in range(300):
        if found := await asyncio.to_thread(what):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("not in time")


def sample(guard: Process, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", guard.page("/metrics")[1], re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def run_again(file: Path) -> Any:
    return asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "guard.cli", "serve", "--config", str(file)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


HANDLED = (
    'grpc_server_handled_total{grpc_code="OK",grpc_method="ModelInfer",'
    'grpc_service="inference.GRPCInferenceService",grpc_type="unary"}'
)


def api(guard: Process) -> str:
    found = guard.said(r"admin grpc on (\S+)")
    assert found is not None
    return found[1]


async def both_ready(guard: Process) -> None:
    await soon(lambda: sample(guard, 'guard_workers{state="ready"}') == 2)


async def test_one_scrape_one_health_one_api(tmp_path: Path) -> None:
    async with serving() as server, process(tmp_path, two(server.address), GUARD_ADMIN_TOKEN=TOKEN) as guard:
        assert len(workers_of(guard.process.pid)) == 2
        for _ in range(20):
            assert (await anew(guard)).body
        await soon(lambda: guard.page("/readyz")[0] == 200)
        await both_ready(guard)
        assert sample(guard, HANDLED) == 20
        assert guard.page("/config")[0] == 401
        shown = json.loads(guard.page("/config", TOKEN)[1])
        assert shown["settings"]["workers"] == 2
        assert guard.page("/overview")[0] == 401
        seen = json.loads(guard.page("/overview", TOKEN)[1])
        assert seen["counts"]["calls"]["OK"] == 20
        assert (seen["limits"]["workers"], seen["counts"]["workers"]["ready"]) == (2, 2)
        assert [(model["name"], model["ready"]) for model in seen["models"]] == [("m", True)]

        def status() -> Any:
            with GuardClient(api(guard), TOKEN) as client:
                return client.status()

        told = await asyncio.to_thread(status)
        assert [model.name for model in told.models] == ["m"]
        assert told.models[0].ready
        assert told.config_digest == shown["digest"]
        async with aio.insecure_channel(api(guard)) as channel:  # the token is asked for here, too
            refused = await ended(channel.unary_unary("/guard.v1.GuardService/Status")(b"", timeout=20))
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("plane", ["grpcio", "fast"])
async def test_both_workers_take_connections(plane: str, tmp_path: Path) -> None:
    """One that is stopped keeps its connections waiting: some of many are its, and some are not."""
    if plane == "fast" and library.unusable is not None:
        pytest.skip(str(library.unusable))
    async with serving() as server, process(tmp_path, two(server.address, plane=plane)) as guard:
        assert all([(await anew(guard)).body for _ in range(10)])
        stopped = min(workers_of(guard.process.pid))
        os.kill(stopped, signal.SIGSTOP)
        try:
            ends = await asyncio.gather(*(anew(guard, timeout_s=5) for _ in range(24)))
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert {end.code for end in ends} == {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        guard.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(guard.process.wait(), 30) == 0
        assert bool(guard.said("plane: fast, libnghttp2")) == (plane == "fast")


async def test_no_other_guard_gets_the_port(tmp_path: Path) -> None:
    """Neither one alone nor one with workers."""
    settled = two("127.0.0.1:1")
    async with process(tmp_path, settled) as guard:
        address = (await guard.hear(r"listening on (\S+)"))[1]
        for count in (1, 2):
            other = tmp_path / f"other-{count}.yaml"
            changes = {"workers": count, "listen": {"address": address}, "admin": {"http": None, "grpc": None}}
            other.write_text(yaml.safe_dump({**settled, **changes}))
            second = await run_again(other)
            said = (await asyncio.wait_for(second.communicate(), 60))[1].decode()
            assert second.returncode == 2, said
            assert "listen.address: cannot listen on" in said


async def test_a_reload_reaches_both_and_a_bad_one_neither(tmp_path: Path) -> None:
    async with serving() as server:
        settled = two(server.address)
        async with process(tmp_path, settled) as guard:
            workers = workers_of(guard.process.pid)
            guard.file.write_text(yaml.safe_dump({**settled, "unlisted_models": "allow"}))
            guard.process.send_signal(signal.SIGHUP)
            await soon(lambda: sample(guard, 'guard_config_reloads_total{result="done"}') == 2)
            await passed_on(guard)
            guard.file.write_text(yaml.safe_dump({**settled, "no_such_key": 1}))
            guard.process.send_signal(signal.SIGHUP)
            await guard.hear("settings not reloaded: no_such_key: unknown key")
            guard.file.write_text(yaml.safe_dump({**settled, "workers": 3}))
            guard.process.send_signal(signal.SIGHUP)
            await guard.hear("workers: changed: this needs a restart")
            assert sample(guard, 'guard_config_reloads_total{result="refused"}') == 2
            assert workers_of(guard.process.pid).keys() == workers.keys()

            os.kill(min(workers), signal.SIGKILL)  # who begins now serves what the other serves, not what the file says
            await soon(lambda: workers_of(guard.process.pid).keys() - workers.keys())
            await both_ready(guard)
            await passed_on(guard)


async def passed_on(guard: Process) -> None:
    """The model server is asked about a model that Guard does not know, by every worker."""
    for _ in range(20):
        assert (await anew(guard, request(model="n"))).details.startswith("Request for unknown model")


async def test_a_killed_worker_is_replaced_and_counted(tmp_path: Path) -> None:
    async with serving() as server, process(tmp_path, two(server.address)) as guard:
        for _ in range(20):
            assert (await anew(guard)).body
        workers = workers_of(guard.process.pid)
        os.kill(min(workers), signal.SIGKILL)
        await eventually(lambda: guard.said("ended with -9"), 30)
        for _ in range(20):
            assert (await anew(guard)).body, "the other goes on"
        await both_ready(guard)
        restarts = [sample(guard, f'guard_worker_restarts_total{{worker="{i}"}}') for i in range(2)]
        assert sorted(restarts) == [0, 1]
        assert sample(guard, HANDLED) == 40, "what it had counted is not lost"
        os.kill(max(workers_of(guard.process.pid)), signal.SIGTERM)  # no way to end one, either
        await soon(lambda: sum(sample(guard, f'guard_worker_restarts_total{{worker="{i}"}}') for i in range(2)) == 2)


async def test_a_drain_ends_calls_in_flight_well(tmp_path: Path) -> None:
    async with serving() as server:
        begun, go = asyncio.Event(), asyncio.Event()

        async def infer(body: bytes, context: Any) -> bytes:
            begun.set()
            await go.wait()
            return await server.plain(body, context)

        server.infer = infer
        async with process(tmp_path, two(server.address)) as guard:
            call = asyncio.create_task(guard.call())
            await begun.wait()
            guard.process.send_signal(signal.SIGTERM)
            await guard.hear("worker 0: .*draining")
            await guard.hear("worker 1: .*draining")
            assert (await asyncio.to_thread(guard.page, "/readyz"))[0] == 503
            go.set()
            assert (await call).body
            assert await asyncio.wait_for(guard.process.wait(), 30) == 0
        assert not workers_of(guard.process.pid)
        assert not guard.said("Traceback")


async def test_decisions_of_all_workers_are_watched(tmp_path: Path) -> None:
    """Without a profile nothing is decided, so a real one; in a child process only stages of Guard's own."""
    model = {"name": "m", "profile": profile(tmp_path / "profile"), "validation": {"bounds": False}}
    async with serving() as server:
        settled = two(server.address, models=[model])
        async with process(tmp_path, settled, GUARD_ADMIN_TOKEN=TOKEN) as guard:
            seen: list[str] = []

            def watch() -> None:
                with GuardClient(api(guard), TOKEN) as client:
                    for one in client.watch():
                        seen.append(one.decision_id)
                        if len(seen) == 20:
                            return

            watching = asyncio.create_task(asyncio.to_thread(watch))
            for _ in range(200):  # until the watch has begun, and then twenty more
                assert (await anew(guard)).code is grpc.StatusCode.OK
                if watching.done():
                    break
            await asyncio.wait_for(watching, 30)
            assert len(set(seen)) == 20


async def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    async with process(tmp_path, two("127.0.0.1:1")) as guard:
        workers = workers_of(guard.process.pid)
        assert len(workers) == 2
        guard.process.kill()
        await guard.process.wait()
        await eventually(lambda: not any(alive(pid) for pid in workers), 30)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": [{"name": "m", "profile": "absent"}]}, "cannot read absent"),
        ({"models": [{"name": "m", "budget": {"rows_per_s": 1}}]}, "history.store: memory is each worker's own"),
        ({"listen": {"address": "unix:/tmp/guard.sock"}}, "listen.address: a Unix socket has one listener"),
        ({"listen": {"address": "256.0.0.1:1"}}, "listen.address: cannot listen on"),
        ({"listen": {"address": "nowhere"}}, "listen.address: 'nowhere' is not HOST:PORT"),
        ({"admin": {"http": "nowhere"}}, "admin.http"),
        ({"audit": {"file": "/no/such/directory/audit"}}, "audit.file: cannot open"),
    ],
)
async def test_a_start_that_fails_says_why_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = tmp_path / "guard.yaml"
    file.write_text(yaml.safe_dump(two("127.0.0.1:1", **changes)))
    failed = await run_again(file)
    text = (await asyncio.wait_for(failed.communicate(), 60))[1].decode()
    assert failed.returncode == 2, text
    assert said in text
    assert "Traceback" not in text
    assert not workers_of(failed.pid)


# --- parts


def test_a_claim_is_exclusive_and_lets_its_own_workers_in() -> None:
    with claim("127.0.0.1:0") as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConfigError, match="in use"), claim(address):
            pass
        for options, fits in (((), False), ((socket.SO_REUSEADDR,), False), ((socket.SO_REUSEPORT,), True)):
            with socket.socket() as other:
                for option in options:
                    other.setsockopt(socket.SOL_SOCKET, option, 1)
                if fits:
                    other.bind(("127.0.0.1", port))
                else:
                    with pytest.raises(OSError, match="in use"):
                        other.bind(("127.0.0.1", port))
    with claim(address):
        pass


def test_a_port_that_somebody_listens_on_is_not_claimed() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"^listen\.address: cannot listen"), claim(address):
            pass


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "no.such.host.invalid:1"])
def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^listen\.address"), claim(address):
        pass


def test_the_wait_doubles_and_is_forgotten_after_a_steady_time() -> None:
    waits = [0.0]
    for _ in range(12):
        waits.append(supervisor.backoff_s(waits[-1], 1.0))
    assert waits[1:4] == [0.2, 0.4, 0.8]
    assert waits[-1] == supervisor.LATE_S
    assert supervisor.backoff_s(waits[-1], supervisor.STEADY_S) == 0.2


def test_ends_as_statuses() -> None:
    assert supervisor.status_of(0, ending=False) == 0
    assert supervisor.status_of(2, ending=True) == 2
    assert supervisor.status_of(-9, ending=True) == 137
    assert supervisor.status_of(-15, ending=True) == 0
    assert supervisor.status_of(-15, ending=False) == 143


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[2] / "deploy").glob("guard*.yaml")))
def test_workers_get_the_settings_that_the_parent_read(file: Path) -> None:
    settings = config.load(file)
    assert config.validate(json.loads(json.dumps(config.public(settings)))) == settings
