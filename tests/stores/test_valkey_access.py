"""Who Guard is to its shared history: the user that the docs name may do what is needed and no more; passwords."""

import asyncio
import hashlib
import inspect
import logging
import re
from pathlib import Path

import pytest
import redis

from guard.stores.client import Server, StoreAway
from guard.stores.fallback import FallbackStore
from guard.stores.memory import MemoryStore
from guard.stores.valkey import ValkeyStore
from tests.servers import install, valkey
from tests.stores import contract
from tests.stores.contract import ask, count, kept, row, tell
from tests.stores.test_valkey import PATIENT

PASSWORD = "a password that is 42 easy to find"
ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
(USER,) = re.findall(r"^```acl\n(.*)\n```$", PAGE, re.MULTILINE)
IN_A_CLUSTER = "+command +cluster|slots"
assert IN_A_CLUSTER in PAGE


def acl(directory, user=USER, password=PASSWORD):
    """Options of a server that knows this user, and an administrator."""
    hashed = hashlib.sha256(password.encode()).hexdigest()
    (directory / "users.acl").write_text(f"user default off\nuser admin on nopass ~* &* +@all\n{user} #{hashed}\n")
    return "--aclfile", str(directory / "users.acl")


def stores(port, **words):
    known = {"username": "guard", "password_env": "STORE_PASSWORD", "timeout_s": PATIENT} | words
    bounds = {
        name: known.pop(name) for name in tuple(known) if name in {"ttl_s", "max_entries", "max_callers", "timeout_s"}
    }
    return ValkeyStore(Server((f"127.0.0.1:{port}",), **known), **bounds)


@pytest.fixture(params=["valkey", "redis"])
def program(request):
    if request.param == "valkey":
        return None
    return install.redis() or pytest.skip("there is no redis-server, and it is not ours to install one")


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("STORE_PASSWORD", PASSWORD)


async def all_that_it_does(make, admin):
    """The whole contract, and what old and many rows and callers bring about."""
    for name, test in inspect.getmembers(contract, inspect.iscoroutinefunction):
        if name.startswith("test_"):
            admin.flushall()
            store = make()
            await test(store)
            await store.close()
    store = make(ttl_s=10.0, max_entries=10, max_callers=2)
    for n in range(40):
        await tell(
            store, 3.0 * n, caller=str(n), evidence={"one": (0.5,)}, answered=tuple(kept(at=i) for i in range(5))
        )
        await ask(store, row(n, n + 1), now=3.0 * n)
    await store.close()


def used(admin):
    """The commands that somebody but the administrator has called, also within scripts."""
    own = {"acl|log", "config|resetstat", "flushall", "info", "hello", "auth", "cluster|info"}
    return {name.removeprefix("cmdstat_") for name in admin.info("commandstats")} - own


def allowed(words):
    return {word[1:] for word in words.split() if word.startswith("+")}


async def test_the_documented_user_may_do_what_is_needed_and_no_more(program, tmp_path):
    with valkey.start(tmp_path, *acl(tmp_path), program=program) as port:
        with redis.Redis(port=port, username="admin", password="", driver_info=None) as admin:
            admin.execute_command("CONFIG", "RESETSTAT")
            await all_that_it_does(lambda **words: stores(port, **words), admin)
            assert admin.acl_log() == []
            assert used(admin) == allowed(USER)
        with redis.Redis(port=port, username="guard", password=PASSWORD) as guard:
            for words in (("GET", "other"), ("FLUSHALL",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("ACL", "LIST")):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    guard.execute_command(*words)
            with pytest.raises(redis.exceptions.ResponseError, match=r"permission|can't access"):
                guard.eval("return redis.call('GET', 'other')", 0)


async def test_a_user_who_may_too_little(program, tmp_path, caplog):
    with valkey.start(tmp_path, *acl(tmp_path, USER.replace("+setrange ", "")), program=program) as port:
        store = FallbackStore(stores(port), MemoryStore())
        assert await ask(store, row(1)) == [(0, False)]
        assert store.away
        assert "its user may not do all that is needed" in caplog.text
        await store.close()


@pytest.mark.parametrize(
    ("option", "said"),
    [(("--maxmemory", "1"), "it is full"), (("--replicaof", "127.0.0.1 1"), "it is a replica")],
    ids=["full", "a replica"],
)
async def test_a_server_that_takes_nothing(program, tmp_path, option, said):
    with valkey.start(tmp_path, *option, program=program) as port:
        store = stores(port, username=None, password_env=None)
        with pytest.raises(StoreAway, match=said):
            await ask(store, row(1))
        await store.close()


@pytest.mark.parametrize("local", [True, False])
async def test_a_wrong_password(tmp_path, monkeypatch, caplog, local):
    monkeypatch.setenv("STORE_PASSWORD", "not " + PASSWORD)
    caplog.set_level(logging.DEBUG)
    with valkey.start(tmp_path, *acl(tmp_path)) as port:
        store = FallbackStore(stores(port), MemoryStore() if local else None)
        for now in (0.0, 0.1, 5.0):
            if local:
                assert await ask(store, row(1), now=now) == [(0, False) if now == 0.0 else (1, True)]
            else:
                with pytest.raises(OSError, match="away"):
                    await ask(store, row(1), now=now)
        await store.close()
    assert "wrong user or password" in caplog.text
    assert PASSWORD not in caplog.text
    assert len([one for one in caplog.records if one.name == "guard.stores.fallback"]) == 1  # said once


async def test_a_rotated_password_is_picked_up(tmp_path):
    """The old one ends with its connections."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    port = valkey.free_port()
    store = stores(port, password_env=None, password_file=file)
    with valkey.start(tmp_path, *acl(tmp_path), port=port):
        await tell(store, evidence={"one": (0.5,)})
        assert await count(store, "a") == 1
    file.write_text("another\n")
    await asyncio.sleep(0.05)  # until the end of the connection is seen
    with valkey.start(tmp_path, *acl(tmp_path, password="another"), port=port):
        await tell(store, evidence={"one": (0.5,)})
        assert await count(store, "a") == 1
        file.unlink()
        assert await count(store, "a") == 1  # by the connection that there is
    await asyncio.sleep(0.05)
    with valkey.start(tmp_path, *acl(tmp_path, password="another"), port=port):
        with pytest.raises(StoreAway):
            await ask(store, row(1))
        await store.close()
