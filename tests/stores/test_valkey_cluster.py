"""A real cluster of three masters: models are spread; a dead node takes its own away, its replica brings them back."""

import asyncio
import time

import pytest
import redis

from guard.stores.client import Server, StoreAway
from guard.stores.fallback import OWN, FallbackStore
from guard.stores.memory import MemoryStore
from guard.stores.valkey import ValkeyStore, _prefix
from tests.servers import valkey, valkey_cluster
from tests.stores.contract import ask, count, row, tell
from tests.stores.test_valkey import PATIENT
from tests.stores.test_valkey_access import IN_A_CLUSTER, USER, all_that_it_does, allowed, used

MODELS = [f"model {number}" for number in range(12)]


def store_of(nodes, timeout_s=PATIENT, bounds=None, **words):
    addresses = tuple(f"127.0.0.1:{node.port}" for node in nodes)
    return ValkeyStore(Server(addresses, cluster=True, **words), timeout_s=timeout_s, **(bounds or {}))


def slot(model):
    return redis.cluster.key_slot(_prefix(model))


def master(model):
    """Which of the masters has it."""
    return next(i for i, (first, last) in enumerate(valkey_cluster.SHARES) if first <= slot(model) <= last)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with valkey_cluster.start(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


async def test_models_are_spread(cluster):
    store, other = store_of(cluster[:1]), store_of(cluster[1:])
    for model in MODELS:
        assert await ask(store, row(1, 2), row(1, 3), scope=model) == [(0, False), (1, False)]
        await tell(other, scope=model, evidence={"one": (0.5,)})
        assert await count(store, "a", scope=model) == 1
        assert await ask(other, row(1, 2), scope=model) == [(2, True)]
        assert [name for name, _ in await store.callers(model)] == ["a"]
    for i, node in enumerate(cluster):
        keys = set(node.client.scan_iter())
        assert {key.split(b"}")[0] + b"}" for key in keys} == {_prefix(model) for model in MODELS if master(model) == i}
        assert keys
    assert await store.forget(MODELS[0], "a")
    assert await other.past(MODELS[0], "a") is None
    for one in (store, other):
        await one.close()


async def test_the_documented_user_may_do_what_is_needed_and_no_more(cluster, monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", "open sesame")

    class All:
        """All nodes' administrator."""

        def flushall(self):
            for node in cluster:
                node.client.flushall()

    for node in cluster:
        node.ask("ACL", "SETUSER", *USER.split()[1:], *IN_A_CLUSTER.split(), ">open sesame")
        node.ask("CONFIG", "RESETSTAT")
    words = {"username": "guard", "password_env": "STORE_PASSWORD"}
    await all_that_it_does(lambda **bounds: store_of(cluster, bounds=bounds, **words), All())
    assert [node.client.acl_log() for node in cluster] == [[]] * 3
    said = set().union(*(used(node.client) for node in cluster)) - {"ping"}  # nodes to each other
    assert said == allowed(f"{USER} {IN_A_CLUSTER}")


async def test_a_model_that_moves_is_followed(cluster):
    model = "one that moves"
    store, source = store_of(cluster), cluster[master(model)]
    target = cluster[(master(model) + 1) % 3]
    assert await ask(store, row(1, 2), scope=model) == [(0, False)]
    source.client.delete(*source.client.scan_iter(_prefix(model).replace(b"{", b"?") + b"*"))
    target.ask("CLUSTER", "SETSLOT", slot(model), "NODE", target.name)
    for node in cluster:
        node.ask("CLUSTER", "SETSLOT", slot(model), "NODE", target.name)
    assert await ask(store, row(1, 2), scope=model) == [(0, False)]
    assert await ask(store, row(1, 3), scope=model) == [(1, False)]
    await store.close()


async def test_nobody_is_there(tmp_path):
    store = ValkeyStore(Server((f"127.0.0.1:{valkey.free_port()}",), cluster=True), timeout_s=0.5)
    with pytest.raises(StoreAway):
        await ask(store, row(1))
    with valkey.start(tmp_path) as port:
        plain = ValkeyStore(Server((f"127.0.0.1:{port}",), cluster=True), timeout_s=0.5)
        with pytest.raises(StoreAway):  # it is no cluster
            await ask(plain, row(1))
        await plain.close()
    await store.close()


@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_a_replica_takes_over(tmp_path, how):
    told = []
    with valkey_cluster.start(tmp_path, replicas=1) as nodes:
        shared = store_of(nodes[:3], timeout_s=0.5)
        store = FallbackStore(shared, MemoryStore(first=OWN), apart=True, on_away=told.append)
        for model in MODELS:
            assert await ask(store, row(1, 2), scope=model) == [(0, False)]
        while nodes[0].written != nodes[3].written:
            await asyncio.sleep(0.02)
        nodes[0].kill() if how == "killed" else nodes[0].pause()
        for model in MODELS:
            began = time.monotonic()
            got = await ask(store, row(1, 2), scope=model, now=1.0)
            assert time.monotonic() - began < 0.5 + 5.0
            if how == "killed":  # those who have to ask where their model is may be late as well; in the end none is
                assert got == [(0, False)] or (got == [(2, True)] and master(model))
        assert told[0]
        async with asyncio.timeout(20):
            now = 10.0
            while store.away:
                now += 2.0
                await asyncio.sleep(0.2)
                for model in MODELS:
                    await ask(store, row(1, 2), scope=model, now=now)
        assert told[-1] is False
        for model in MODELS:
            assert await ask(store, row(1, 3), scope=model, now=now + 1.0) == [(1, False)]
            assert await ask(store, row(1, 2), scope=model, now=now + 1.0) == [(2, True)]
        await store.close()


async def test_only_the_models_of_a_dead_node_are_away(tmp_path):
    """And each is tried by itself: others that answer do not bring it back."""
    told = []
    with valkey_cluster.start(tmp_path) as nodes:
        store = FallbackStore(store_of(nodes, timeout_s=0.5), MemoryStore(first=OWN), apart=True, on_away=told.append)
        for model in MODELS:
            await ask(store, row(1, 2), scope=model)
        nodes[0].kill()
        for now in (1.0, 1.5, 5.0, 9.0):
            for model in MODELS:
                got = await ask(store, row(1, 2), scope=model, now=now)
                assert got == [(2, True) if master(model) or now > 1.0 else (0, False)]
        assert store.entries == sum(master(model) == 0 for model in MODELS)
        assert told == [True]
        await store.close()
