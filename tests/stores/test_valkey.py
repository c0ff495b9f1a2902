import asyncio
import ssl
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import redis

from guard.stores.client import Server, StoreAway
from guard.stores.valkey import ValkeyStore
from guard.types import Kept, Sketch, Update
from tests.servers import valkey
from tests.stores.bucket_contract import NOW, rows, take
from tests.stores.contract import *  # noqa: F403
from tests.stores.contract import ask, count, history, kept, row, same, tell

PATIENT = 5.0  # seconds: the machine may be busy


def server(port, **words):
    return Server((f"127.0.0.1:{port}",), **words)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with valkey.start(tmp_path_factory.mktemp("valkey")) as port:
        yield port


@pytest.fixture
def empty(port):
    with redis.Redis(port=port) as plain:
        plain.flushall()
        yield plain


@pytest.fixture
async def make(port, empty):
    """Stores on the one server, which is empty at first."""
    made = []

    def one(**words):
        made.append(ValkeyStore(server(port), timeout_s=PATIENT, **words))
        return made[-1]

    yield one
    for store in made:
        await store.close()


@pytest.fixture
def store(make):
    return make()


async def test_two_workers_see_one_history(make):
    one, two = make(), make()
    root = (await history(one, row(1, 2, 3), caller="a")).matches[0].number
    got = (await history(two, row(2, 3, 4), caller="b")).matches[0]
    assert (got.overlap, got.neighbours[0].number) == (2, root)
    await tell(one, evidence={"one": (0.1,)}, answered=(kept(root, at=1.0),))
    await tell(two, evidence={"one": (0.2,)}, answered=(kept(at=2.0),))
    for store in (one, two, one):
        past = (await history(store)).caller
        same(past.evidence["one"], Evidence().add([0.1, 0.2]))  # noqa: F405
        assert past.recent.positions[:, 0].tolist() == [1.0, 2.0]


async def test_no_p_value_of_many_workers_is_lost(make):
    stores = [make() for _ in range(4)]
    await asyncio.gather(*(tell(store, evidence={"one": (0.3,)}) for store in stores * 25))
    same((await history(stores[0])).caller.evidence["one"], Evidence().add([0.3] * 100))  # noqa: F405


async def test_known_recent_rows_do_not_travel_again(make):
    one, two = make(), make()
    for number in range(300):
        await tell(two, answered=(kept(at=float(number)),))
        if number % 7 == 0:
            await history(one)
    recents = [(await history(store)).caller.recent for store in (one, two)]
    for recent in recents:
        assert recent.positions[:, 0].tolist() == [float(i) for i in range(44, 300)]
    await two.forget("model", "a")
    await tell(two, answered=(kept(at=7.0),))
    assert (await history(one)).caller.recent.positions[:, 0].tolist() == [7.0]


async def test_two_workers_share_a_bucket(make):
    """At once, and by both clocks: never more than one burst in all."""
    stores = [make() for _ in range(2)]
    # One after the other: were the clock that is behind first, the other's second would rightly refill the bucket.
    assert [await take(store, rows(), now=NOW - n) for n, store in enumerate(stores)] == [(0.0,)] * 2
    got = await asyncio.gather(*(take(store, rows(), now=NOW - n) for n, store in enumerate(stores) for _ in range(50)))
    assert got.count((0.0,)) == 8
    assert [await take(store, rows(10.0), now=NOW + 5.0) for store in stores] == [(0.0,), (5.0,)]


async def test_buckets_expire_once_they_are_full(make, empty):
    store = make(ttl_s=10.0)
    day, second = rows(50.0, rate=100 / 86_400, burst=100.0, name="day"), rows(rate=10.0, burst=1.0, name="second")
    await take(store, rows(0.0), second)  # to look at one keeps nothing of it
    (key,) = empty.scan_iter()
    assert key.startswith(b"guard:2:{")
    assert key.endswith(b":b:a")
    assert empty.hkeys(key) == [b"second"]
    assert 0 < empty.ttl(key) <= 61
    await take(store, day)
    assert 43_100 < empty.ttl(key) <= 43_260
    await take(store, second, now=NOW + 10.0)
    assert 43_100 < empty.ttl(key) <= 43_260
    await take(store, rows(0.0), caller="b")
    assert list(empty.scan_iter()) == [key]


async def test_old_rows_and_callers_are_forgotten(make):
    evicted = []
    store = make(ttl_s=10.0, on_evict=evicted.append)
    await ask(store, row(1, 2), now=0)
    await tell(store, evidence={"one": (0.5,)})
    assert await ask(store, row(1, 3), now=10, caller="b") == [(1, False)]
    assert await ask(store, row(1, 2, name="late"), now=10.5, caller="b") == [(1, False)]
    assert sorted(evicted) == ["callers", "entries"]
    assert await count(store, "a", now=10.6) == 0
    assert await ask(store, row(1, 2), now=10.6) == [(2, False)]


async def test_a_repeat_starts_its_age_anew(make):
    store = make(ttl_s=10.0)
    await ask(store, row(1, 2), now=0)
    await ask(store, row(1, 2), now=8)
    assert await ask(store, row(1, 2), now=16) == [(2, True)]
    assert await ask(store, row(1, 2, 3), now=25) == [(2, False)]


async def test_past_max_entries_the_first_seen_goes(make):
    evicted = []
    store = make(max_entries=2, on_evict=evicted.append)
    got = await history(store, row(1), row(2), row(3))
    assert (evicted, got.entries) == (["entries"], 2)
    assert await ask(store, row(1, 10), row(2, 10), row(3, 10), remember=False) == [(0, False), (1, False), (1, False)]
    assert await ask(store, row(2), row(3), remember=False) == [(1, True), (1, True)]


async def test_past_max_callers_the_longest_unseen_goes(make):
    store = make(max_callers=2)
    for now, caller in enumerate("ab"):
        await tell(store, now, caller=caller, evidence={"one": (0.5,)})
    await history(store, now=2.0)
    await tell(store, 3.0, caller="c", evidence={"one": (0.5,)})
    assert [await count(store, caller, now=4.0) for caller in "abc"] == [1, 0, 1]


async def test_recent_rows_are_bounded_over_all_callers(make):
    store = make(max_entries=10)
    for now, caller in enumerate("abc"):
        await tell(store, now, caller=caller, answered=tuple(kept(at=float(i)) for i in range(4)))
    assert [len((await history(store, now=3, caller=caller)).caller.recent) for caller in "abc"] == [0, 4, 4]


async def test_every_key_expires_and_says_its_version(store, empty):
    root = (await history(store, row(1, 2))).matches[0].number
    await tell(store, cohorts=("global",), evidence={"one": (0.5,)}, components={root: (0.5,)}, answered=(kept(root),))
    keys = list(empty.scan_iter())
    assert len(keys) >= 10
    assert all(key.startswith(b"guard:2:{") for key in keys)
    assert all(0 < empty.ttl(key) <= 4 * 86_400 for key in keys)


async def test_a_stored_row_takes_at_most_two_kilobytes(make, empty):
    """What the server's memory grows by for 20,000 rows of 200 callers, one in twenty the root of a cluster."""
    rows, wide, embedded = 20_000, 48, 64
    store, rng = make(max_entries=rows), np.random.default_rng(0)
    before = empty.info("memory")["used_memory"]
    for at in range(0, rows, 100):
        sketches = tuple(
            Sketch(rng.bytes(16), rng.integers(0, 2**63, 32, dtype=np.uint64), np.ones(wide, np.float32))
            for _ in range(100)
        )
        numbers = [match.number for match in (await history(store, *sketches, caller=str(at))).matches]
        answered = tuple(Kept(n, np.ones(wide, np.float32), np.ones(embedded, np.float32), 1, 0.5) for n in numbers)
        update = Update({"one": (0.5,) * 100}, {}, dict.fromkeys(numbers[::20], (0.5,)), {}, answered)
        await store.credit("model", str(at), ("global",), update, 0.0)
    used = (empty.info("memory")["used_memory"] - before) / rows
    assert (await history(store)).entries == rows
    assert 300 < used <= 2048


async def test_away_within_the_deadline_and_back(tmp_path):
    port = valkey.free_port()
    store = ValkeyStore(server(port), timeout_s=1.0)
    with pytest.raises(StoreAway):
        await ask(store, row(1))
    for number in range(2):
        with valkey.start(tmp_path, port=port):
            assert await ask(store, row(1, number)) == [(0, False)]
            await tell(store, evidence={"one": (0.5,)})
        start = time.monotonic()
        for call in (ask(store, row(1)), tell(store, evidence={"one": (0.5,)}), store.callers("model")):
            with pytest.raises(OSError, match="away"):
                await call
        assert time.monotonic() - start < 3 * 1.0 + 5.0
    await store.close()


async def test_a_server_that_says_nothing_holds_nobody_up():
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    store = ValkeyStore(server(silent.sockets[0].getsockname()[1]), timeout_s=0.2)
    start = time.monotonic()
    with pytest.raises(StoreAway):
        await ask(store, row(1))
    assert time.monotonic() - start < 5.0
    silent.close()


async def test_a_cluster(tmp_path):
    with valkey.start(tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(valkey.free_port())) as port:
        with redis.Redis(port=port) as plain:
            plain.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            for _ in range(100):
                if b"cluster_state:ok" in plain.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):
                    break
                await asyncio.sleep(0.1)
        store = ValkeyStore(server(port, cluster=True), timeout_s=PATIENT)
        assert await ask(store, row(1, 2), row(1, 3)) == [(0, False), (1, False)]
        await tell(store, evidence={"one": (0.5,)})
        assert [name for name, _ in await store.callers("model")] == ["a"]
        await store.close()


@pytest.mark.parametrize("source", ["file", "env"])
async def test_a_password(tmp_path, monkeypatch, source):
    (tmp_path / "password").write_text("open sesame\n")
    monkeypatch.setenv("STORE_PASSWORD", "open sesame")
    words = {"password_file": tmp_path / "password"} if source == "file" else {"password_env": "STORE_PASSWORD"}
    with valkey.start(tmp_path, "--requirepass", "open sesame") as port:
        store, stranger = ValkeyStore(server(port, **words), timeout_s=PATIENT), ValkeyStore(server(port))
        assert await ask(store, row(1)) == [(0, False)]
        with pytest.raises(StoreAway):
            await ask(stranger, row(1))
        await store.close()
        await stranger.close()


@pytest.fixture
def certificate(tmp_path):
    files = {name: tmp_path / f"{name}.pem" for name in ("key", "cert")}
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", files["key"], "-out", files["cert"]], check=True, capture_output=True)
    return files


async def tls_front(port, files):
    """The wheel's server is built without TLS: this ends it in front of the server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files["cert"], files["key"])

    async def copy(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader, writer):
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, back_writer), copy(back_reader, writer), return_exceptions=True)

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


async def test_tls(port, empty, certificate):
    front = await tls_front(port, certificate)
    tls_port = front.sockets[0].getsockname()[1]
    store = ValkeyStore(server(tls_port, tls=True, ca_file=certificate["cert"]), timeout_s=PATIENT)
    assert await ask(store, row(1)) == [(0, False)]
    strangers = [server(tls_port, tls=True), server(tls_port)]  # knows no such authority; speaks no TLS
    for stranger in (ValkeyStore(one, timeout_s=1.0) for one in strangers):
        with pytest.raises(StoreAway):
            await ask(stranger, row(1))
        await stranger.close()
    await store.close()
    front.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"addresses": ()}, "one address"),
        ({"addresses": ("a:1", "b:2")}, "one address"),
        ({"addresses": ("nowhere",)}, "host:port"),
        ({"password_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE"),
        ({"password_file": Path("/no/such/file")}, "password_file"),
        ({"password_file": Path("x"), "password_env": "X"}, "both"),
    ],
)
def test_servers_that_cannot_be(words, said):
    with pytest.raises(ValueError, match=said):
        ValkeyStore(Server(**words))
    with pytest.raises(ValueError, match="max_entries"):
        ValkeyStore(max_entries=0)
