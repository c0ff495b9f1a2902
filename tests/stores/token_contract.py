"""What every store must do with tokens that are good once; `tests.stores.contract` has these tests, too."""

import asyncio
import contextlib

T0 = 1.8e9


async def once(store, token=b"t" * 16, now=T0, until=T0 + 60, scope="model", caller="a"):
    return await store.once(scope, caller, token, until, now)


async def test_a_token_is_good_once(store):
    assert [await once(store) for _ in range(3)] == [True, False, False]
    assert await once(store, b"u" * 16)


async def test_of_many_at_once_one_is_first(store):
    assert sorted(await asyncio.gather(*[once(store) for _ in range(20)])) == [False] * 19 + [True]


async def test_a_token_is_the_callers_and_the_models_own(store):
    assert await once(store)
    assert await once(store, caller="b")
    assert await once(store, scope="other")
    assert not await once(store, caller="b")


async def test_to_forgive_a_caller_makes_no_token_new(store):
    assert await once(store)
    with contextlib.suppress(OSError):  # a shared store that is away
        await store.forget("model", "a")
    assert not await once(store)
