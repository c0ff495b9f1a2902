"""Watching: every reader its own bounded queue."""

import asyncio

import pytest

from guard.broadcast import Broadcast, TooManyReaders
from guard.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics()


async def test_every_reader_gets_every_event(metrics):
    cast: Broadcast[str] = Broadcast(metrics)
    cast.publish("before")
    readers = [cast.subscribe(), cast.subscribe()]
    for event in "ab":
        cast.publish(event)
    cast.close()
    for reader in readers:
        assert [item async for item in reader] == [("a", 0), ("b", 0)]


async def test_a_slow_reader_loses_the_oldest_and_is_told(metrics):
    cast: Broadcast[str] = Broadcast(metrics)
    slow, quick = cast.subscribe(2), cast.subscribe(10)
    for event in "abcde":
        cast.publish(event)
    cast.close()
    assert [item async for item in slow] == [("d", 3), ("e", 3)]
    assert [event async for event, _ in quick] == list("abcde")
    assert metrics.watch_lost.collect()[0].samples[0].value == 3.0


async def test_readers_are_bounded_and_a_place_is_given_back(metrics):
    cast: Broadcast[str] = Broadcast(metrics, max_readers=1)
    reader = cast.subscribe()
    with pytest.raises(TooManyReaders):
        cast.subscribe()
    reader.close()
    reader.close()
    cast.subscribe()


async def test_a_waiting_reader_ends_when_closed(metrics):
    cast: Broadcast[str] = Broadcast(metrics)
    reader = cast.subscribe()
    waiting = asyncio.ensure_future(anext(reader, None))
    await asyncio.sleep(0)
    cast.publish("a")
    assert await waiting == ("a", 0)
    waiting = asyncio.ensure_future(anext(reader, None))
    await asyncio.sleep(0)
    reader.close()
    assert await waiting is None
