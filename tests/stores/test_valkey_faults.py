"""A Guard whose shared history dies, falls silent, is late, and comes back: nobody waits, and nothing is mixed up."""

import asyncio
import time
from pathlib import Path

import pytest
import redis

from guard import config
from guard.client import GuardClient, GuardError
from guard.stores.valkey import ValkeyStore
from tests.proxy.world import Guarded, guarding
from tests.servers import valkey
from tests.servers.calls import digits
from tests.stores.attack import attack, model
from tests.stores.contract import ask, count, row, tell
from tests.stores.relay import relayed
from tests.stores.test_valkey import PATIENT, server

TIMEOUT_S, SLACK_S = 0.3, 0.7  # seconds; the machine may be busy
STEPS = attack()
TOKEN = "the admin token"


@pytest.fixture
def guarded(digits_file: Path, digits_profile: Path):
    """-> a context in which Guard serves the digits, with the fingerprint monitor and a store at this port."""

    def serve(port: int, *, on_away: str = "local", on_error: str = "allow", timeout_s: float = TIMEOUT_S, **policy):
        store = {"addresses": [f"127.0.0.1:{port}"], "timeout_s": timeout_s, "on_away": on_away}
        served = model(digits_file, digits_profile, "fingerprint", on_error=on_error)
        tree = {
            "listen": {"address": "127.0.0.1:0"},
            "models": [{**served, "policy": {**served["policy"], **policy}}],
            "history": {"store": "valkey", "valkey": store},
            "admin": {"http": None, "grpc": "127.0.0.1:0"},
            "audit": {"file": "/dev/null"},
            "limits": {"drain_s": 0.0},
        }
        return guarding(config.validate(tree), token=TOKEN)

    return serve


async def send(guard: Guarded, i: int) -> str:
    """How step i of the attack ends."""
    return (await guard.unary(digits(STEPS[i : i + 1]).SerializeToString())).code.name


async def timed(guard: Guarded, i: int) -> tuple[str, float]:
    began = time.monotonic()
    return await send(guard, i), time.monotonic() - began


async def until_refused(guard: Guarded, first: int = 0) -> int:
    """The number of the step that is refused."""
    for i in range(first, len(STEPS)):
        if await send(guard, i) != "OK":
            return i
    raise AssertionError("never refused")


def away(guard: Guarded) -> bool:
    return bool(guard.count("guard_store_away"))


async def back(guard: Guarded) -> None:
    """Ask until the store is in use again."""
    async with asyncio.timeout(10):
        while away(guard):
            await send(guard, 0)
            await asyncio.sleep(0.1)


async def test_a_server_that_is_killed_and_comes_back(guarded, tmp_path):
    port = valkey.free_port()
    async with guarded(port) as guard:
        assert await send(guard, 0) == "OK"  # it is not there yet
        assert away(guard)
        with valkey.start(tmp_path, port=port):
            await back(guard)
            assert await until_refused(guard) < 20
        got = [await timed(guard, i) for i in range(4)]  # it was killed
        assert [code for code, _ in got] == ["OK"] * 4  # what is known of him here is less
        assert max(took for _, took in got) < TIMEOUT_S + SLACK_S
        assert away(guard)
        assert guard.app.runtime.shared.store.entries > 0
        assert await until_refused(guard, 4) < 20  # by what was seen here alone
        with valkey.start(tmp_path, port=port):
            await back(guard)
            assert await send(guard, 0) == "OK"  # the server has forgotten everything
            assert await until_refused(guard) < 20
            assert not away(guard)


@pytest.mark.parametrize(("on_error", "meanwhile"), [("allow", "OK"), ("deny", "PERMISSION_DENIED")])
async def test_monitors_fail_while_it_is_away(guarded, tmp_path, on_error, meanwhile):
    port = valkey.free_port()
    async with guarded(port, on_away="on_error", on_error=on_error) as guard:
        with valkey.start(tmp_path, port=port):
            assert await send(guard, 0) == "OK"
            assert not away(guard)
        got = [await timed(guard, i) for i in range(30)]  # it was killed; an attack is refused by then
        assert {code for code, _ in got} == {meanwhile}
        assert max(took for _, took in got) < TIMEOUT_S + SLACK_S
        assert away(guard)
        with valkey.start(tmp_path, port=port):
            await back(guard)
            assert await until_refused(guard, 30) < 60


async def test_a_server_that_falls_silent_holds_nobody_up(guarded, tmp_path):
    with valkey.start(tmp_path) as port:
        async with relayed(port) as relay, guarded(relay.port, on_hostile="allow") as guard:  # refusals take their time
            assert await send(guard, 0) == "OK"
            relay.silent = True
            at_once = await asyncio.gather(*(timed(guard, i) for i in range(8)))
            assert max(took for _, took in at_once) < TIMEOUT_S + SLACK_S
            assert away(guard)
            began = time.monotonic()
            took = [(await timed(guard, 0))[1] for _ in range(30)]
            assert (
                sum(one > TIMEOUT_S / 2 for one in took) <= 1 + time.monotonic() - began
            )  # one a second tries it, the others do not wait
            relay.silent = False
            await back(guard)
            relay.silent = True
            began = time.monotonic()
        assert time.monotonic() - began < TIMEOUT_S + SLACK_S + 1.0  # nor does it hold up the end


@pytest.mark.parametrize("cluster", [False, True])
async def test_late_answers_go_to_nobody(tmp_path, cluster):
    """What comes after its asker has gone must not be taken for the next one's."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(valkey.free_port())) if cluster else ()
    with valkey.start(tmp_path, *options) as port:
        async with relayed(port) as relay:
            if cluster:
                await alone_in_a_cluster(port, relay.port)
            store = ValkeyStore(server(relay.port, cluster=cluster), timeout_s=0.2)
            patient = ValkeyStore(server(relay.port, cluster=cluster), timeout_s=PATIENT)
            for number in range(10):
                await tell(patient, caller=str(number), evidence={"one": (0.5,) * (number + 1)})
            for late_s in (0.0, 0.25, 0.19, 0.15, 0.0):
                relay.late_s = late_s
                if late_s == 0.0:
                    await eventually_asked(store)
                callers = [str(number) for number in range(10)] * 3
                for _ in range(1 if late_s else 10):  # a busy machine makes some late by itself
                    got = await asyncio.gather(*(count(store, one) for one in callers), return_exceptions=True)
                    said = [(int(one) + 1, it) for one, it in zip(callers, got, strict=True) if isinstance(it, int)]
                    assert all(expected == found for expected, found in said)
                    assert all(isinstance(found, int | OSError) for found in got)
                    if len(said) == len(callers):
                        break
                assert len(said) == len(callers) or late_s > 0.0
                assert len(said) < len(callers) or late_s < 0.2
            await store.close()
            await patient.close()


async def alone_in_a_cluster(port: int, announced: int) -> None:
    """This server has all slots, and says that it is at the announced port."""
    with redis.Redis(port=port) as plain:
        plain.config_set("cluster-announce-ip", "127.0.0.1")
        plain.config_set("cluster-announce-port", announced)
        plain.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in plain.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):
            await asyncio.sleep(0.05)


async def eventually_asked(store: ValkeyStore) -> int:
    """Until an exchange is answered in time: connections and topology are learnt anew."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await count(store, "0")
            except OSError:
                await asyncio.sleep(0.05)


async def test_a_cluster_far_away_is_learnt_all_the_same(tmp_path):
    """Where that takes longer than one query may wait."""
    with valkey.start(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(valkey.free_port())) as port:
        async with relayed(port) as relay:
            await alone_in_a_cluster(port, relay.port)
            relay.late_s = 0.15
            store = ValkeyStore(server(relay.port, cluster=True), timeout_s=0.5)
            with pytest.raises(OSError, match="away"):
                await count(store, "0")
            assert await eventually_asked(store) == 0
            await store.close()


async def test_a_burst_waits_for_connections(tmp_path):
    """More at once than there are connections are not a server that is away."""
    with valkey.start(tmp_path) as port:
        store = ValkeyStore(server(port), timeout_s=PATIENT)
        got = await asyncio.gather(*(ask(store, row(1, 1000 + i), caller=str(i)) for i in range(300)))
        assert sorted(overlap for ((overlap, _),) in got) == [0] + [1] * 299
        await store.close()


@pytest.mark.parametrize(("forgiven", "then"), [(True, "OK"), (False, "PERMISSION_DENIED")])
async def test_who_is_forgiven_meanwhile_is_forgiven_there_too(guarded, tmp_path, forgiven, then):
    def forgive(address: str, caller: str) -> bool:
        with GuardClient(address, TOKEN) as operator:
            return operator.forgive("digits", caller)

    with valkey.start(tmp_path) as port:
        async with relayed(port) as relay, guarded(relay.port) as guard:
            first = await until_refused(guard)
            relay.silent = True
            assert await send(guard, 0) == "OK"  # nothing is known of him here
            await until_refused(guard, first + 1)
            ((caller, _),) = await guard.app.runtime.store.callers("digits")
            admin = guard.app.admin["grpc"]
            if forgiven:
                assert await asyncio.to_thread(forgive, admin, caller)
                with pytest.raises(GuardError, match="UNAVAILABLE"):  # neither here nor there, as far as can be known
                    await asyncio.to_thread(forgive, admin, "somebody else")
            assert await send(guard, 0) == then
            relay.silent = False
            await back(guard)
            assert await send(guard, 0) == then
            assert (await guard.app.runtime.store.past("digits", caller) is None) == forgiven
