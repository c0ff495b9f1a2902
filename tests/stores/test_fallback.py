import asyncio

import pytest

from guard.evidence import Evidence
from guard.stores.fallback import OWN, RETRY_S, FallbackStore
from guard.stores.memory import MemoryStore
from guard.stores.valkey import ValkeyStore
from guard.types import History, Update
from tests.servers import valkey
from tests.stores.bucket_contract import *  # noqa: F403
from tests.stores.bucket_contract import rows, take
from tests.stores.contract import row
from tests.stores.test_valkey import server
from tests.stores.token_contract import *  # noqa: F403
from tests.stores.token_contract import once


class Away(MemoryStore):
    """A store that can be told to be away, and counts who asks."""

    def __init__(self):
        super().__init__()
        self.away, self.asked = False, 0

    async def exchange(self, *args, **words):
        self._answer()
        return await super().exchange(*args, **words)

    async def credit(self, *args, **words):
        self._answer()
        await super().credit(*args, **words)

    async def forget(self, *args):
        self._answer()
        return await super().forget(*args)

    async def take(self, *args, **words):
        self._answer()
        return await super().take(*args, **words)

    async def once(self, *args):
        self._answer()
        return await super().once(*args)

    def _answer(self):
        self.asked += 1
        if self.away:
            raise OSError


@pytest.fixture
def told():
    return []


@pytest.fixture(params=["there", "away"])
def store(request):
    """For the contracts of buckets and tokens, which hold with the shared store, and without."""
    shared = Away()
    shared.away = request.param == "away"
    return FallbackStore(shared, MemoryStore(first=OWN))


async def look(store, *rows, now=0.0, caller="a") -> History:
    return await store.exchange("model", caller, ("global",), rows, now)


async def seen(store, now):
    """Whether the row below is known."""
    return (await look(store, row(1, 2), now=now)).matches[0].duplicate


async def test_while_it_is_away_history_is_here(told):
    shared = Away()
    store = FallbackStore(shared, MemoryStore(first=OWN), on_away=told.append)
    assert not await seen(store, 0.0)
    assert await seen(store, 1.0)
    assert store.entries == 0
    shared.away = True
    assert not await seen(store, 2.0)
    assert await seen(store, 2.1)
    assert (told, store.entries) == ([True], 1)
    shared.away = False
    assert await seen(store, 2.2 + RETRY_S)
    assert told == [True, False]


async def test_it_is_tried_again_by_one_query_at_a_time(told):
    shared = Away()
    shared.away = True
    store = FallbackStore(shared, MemoryStore(first=OWN), on_away=told.append)
    for i in range(10):
        await look(store, now=i * RETRY_S / 100)
    assert shared.asked == 1
    await asyncio.gather(*(look(store, now=1.5 * RETRY_S) for _ in range(5)))
    assert shared.asked == 2
    assert told == [True]


async def test_without_a_store_of_ones_own_it_is_an_error(told):
    shared = Away()
    shared.away = True
    store = FallbackStore(shared, None, on_away=told.append)
    for now in (0.0, 0.1):
        with pytest.raises(OSError, match="the store is away"):
            await look(store, now=now)
    assert (told, store.entries) == ([True], 0)
    await store.credit("model", "a", (), Update(evidence={"one": (0.1,)}), 0.2)  # lost
    shared.away = False
    assert (await look(store, now=0.2 + RETRY_S)).caller.evidence == {}


async def test_while_it_is_away_budgets_are_here(told):
    shared = Away()
    store = FallbackStore(shared, MemoryStore(first=OWN), on_away=told.append)
    assert await take(store, rows(10.0), now=0.0) == (0.0,)
    assert await take(store, rows(10.0), now=0.0) == (5.0,)
    shared.away = True
    assert await take(store, rows(10.0), now=1.0) == (0.0,)
    assert await take(store, rows(10.0), now=1.1) == (pytest.approx(4.9),)
    assert (told, shared.asked) == ([True], 3)
    shared.away = False
    assert await take(store, rows(10.0), now=1.2 + RETRY_S) == (pytest.approx(2.8),)  # what was spent here is not owed
    assert told == [True, False]


async def test_without_a_store_of_ones_own_no_budget_can_be_known(told):
    shared = Away()
    shared.away = True
    store = FallbackStore(shared, None, on_away=told.append)
    for now in (0.0, 0.1):
        with pytest.raises(OSError, match="the store is away"):
            await take(store, rows(), now=now)
    shared.away = False
    assert await take(store, rows(10.0), now=0.2 + RETRY_S) == (0.0,)
    assert told == [True, False]


async def test_whoever_is_owed_forgiveness_has_it_before_budgets_bring_the_store_back():
    shared = Away()
    store = FallbackStore(shared, MemoryStore(first=OWN))
    await store.credit("model", "a", (), Update(evidence={"one": (0.1,)}), 0.0)
    shared.away = True
    await store.credit("model", "a", (), Update(evidence={"one": (0.1,)}), 0.0)
    await store.credit("model", "a", (), Update(evidence={"one": (0.1,)}), 0.0)
    assert await store.forget("model", "a")
    shared.away = False
    await take(store, rows(), now=1.0 + RETRY_S)
    assert await store.past("model", "a") is None


async def test_evidence_goes_where_the_rows_are():
    shared = Away()
    store = FallbackStore(shared, MemoryStore(first=OWN))
    update = Update(evidence={"one": (0.1,)})
    await store.credit("model", "a", (), update, 0.0)
    shared.away = True
    await store.credit("model", "a", (), update, 0.0)  # how it is noticed
    await store.credit("model", "a", (), update, 0.0)
    await store.credit("model", "a", (), update, 0.0)
    assert (await store.past("model", "a")).evidence["one"].count == 2
    assert [name for name, _ in await store.callers("model")] == ["a"]
    shared.away = False
    found = await look(store, now=RETRY_S + 1.0)
    assert found.caller.evidence["one"] == Evidence().add([0.1])
    assert await store.forget("model", "a")
    assert not await store.forget("model", "a")
    await store.close()


async def test_what_is_credited_to_a_row_goes_where_the_row_is():
    shared, own = Away(), MemoryStore(first=OWN)
    store = FallbackStore(shared, own)
    first = (await look(store, row(1, 2, 3), row(2, 3, 4))).matches
    shared.away = True
    second = (await look(store, row(1, 2, 3), row(2, 3, 4), now=2.0)).matches
    assert max(match.number for match in first) < OWN < min(match.number for match in second)
    shared.away = False
    assert (await look(store, now=3.0 + RETRY_S)).joined == 0  # it is back, and the own store's query ends only now
    await store.credit("model", "a", (), Update(joins={second[1].number: second[0].number}), 4.0)
    assert (await look(own, now=4.0)).joined == 1
    assert (await look(shared, now=4.0)).joined == 0
    await store.credit("model", "a", (), Update(joins={first[1].number: first[0].number}), 4.0)
    assert (await look(shared, now=4.0)).joined == 1


async def test_a_real_server_that_dies_and_comes_back(tmp_path, told):
    with valkey.start(tmp_path) as port:
        shared = ValkeyStore(server(port), timeout_s=1.0)
        store = FallbackStore(shared, MemoryStore(first=OWN), on_away=told.append)
        assert not await seen(store, 0.0)
        assert await seen(store, 1.0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert not await seen(store, 2.0)
    assert loop.time() - began < 5.0
    assert told == [True]
    with valkey.start(tmp_path, port=port):
        assert not await seen(store, 3.0 + RETRY_S)  # it has forgotten, and is in use again
        assert await seen(store, 3.1 + RETRY_S)
        assert told == [True, False]
        await store.close()


async def test_without_a_store_of_its_own_tokens_have_nowhere_to_be():
    shared = Away()
    store = FallbackStore(shared, None)
    assert await once(store)
    shared.away = True
    with pytest.raises(OSError):
        await once(store, b"u" * 16)
