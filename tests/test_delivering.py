"""A queue and its thread: what was put is counted once, whatever the end is like, and each thread ends by itself."""

import sys
import threading
from collections import Counter

import pytest

from guard.delivering import Delivery


class Box:
    """A carrier that takes everything, once it may."""

    def __init__(self, *, held: bool = False) -> None:
        self.entered, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.items: list[int] = []
        self.closed_by = ""
        if not held:
            self.go.set()

    def carry(self, items: list[int]) -> int:
        self.entered.set()
        assert self.go.wait(60)
        self.items += items
        return 0

    def hurry(self) -> None:
        pass

    def close(self) -> None:
        self.closed_by = threading.current_thread().name
        self.closed.set()


class Counts:
    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, outcome: str, things: int) -> None:
        with self._lock:
            self.of[outcome] += things


@pytest.fixture
def counts() -> Counts:
    return Counts()


def delivery_of(box: Box, counts: Counts, max_queued: int = 10_000, gather_s: float = 0.0) -> Delivery[int]:
    return Delivery("things", box, counts, thread="things", max_queued=max_queued, gather_s=gather_s)


def test_what_is_queued_is_delivered_before_the_end(counts: Counts) -> None:
    box = Box(held=True)
    delivery = delivery_of(box, counts)
    for number in range(1000):
        delivery.put(number)
    box.go.set()
    delivery.close(30.0)
    assert box.items == list(range(1000))
    assert (counts.of["written"], box.closed_by) == (1000, "things")


def test_what_comes_at_the_moment_of_the_end_is_counted(counts: Counts) -> None:
    put, switch = Counts(), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            box, ended = Box(), threading.Event()
            delivery = delivery_of(box, counts)

            def puts(to: Delivery[int] = delivery, ended: threading.Event = ended) -> None:
                while not ended.is_set():
                    to.put(0)
                    put("", 1)

            threads = [threading.Thread(target=puts) for _ in range(4)]
            for thread in threads:
                thread.start()
            assert box.entered.wait(30)
            delivery.close(30.0)
            ended.set()
            for thread in threads:
                thread.join(30)
    finally:
        sys.setswitchinterval(switch)
    assert counts.of["written"] + counts.of["dropped"] == put.of[""]
    assert counts.of["failed"] == 0


def test_a_thread_that_was_given_up_closes_its_carrier_when_it_can(counts: Counts) -> None:
    box = Box(held=True)
    delivery = delivery_of(box, counts)
    delivery.put(1)
    assert box.entered.wait(30)
    delivery.put(2)
    delivery.close(0.01)
    delivery.put(3)
    assert counts.of == {"failed": 1, "dropped": 2}
    assert not box.closed.is_set()
    box.go.set()
    assert box.closed.wait(30)
    assert box.items == [1]
    assert counts.of == {"failed": 1, "dropped": 2}


def test_a_queue_shorter_than_a_batch_is_not_left_to_gather(counts: Counts) -> None:
    """Nothing is dropped while the thread waits for more than there can be."""
    box = Box()
    delivery = delivery_of(box, counts, max_queued=2, gather_s=3600.0)
    delivery.put(1)
    delivery.put(2)
    assert box.entered.wait(30)
    delivery.put(3)
    delivery.close(30.0)
    assert box.items == [1, 2, 3]


def test_a_carrier_that_cannot_be_closed_is_told_of(counts: Counts, caplog: pytest.LogCaptureFixture) -> None:
    box = Box()

    def close() -> None:
        raise RuntimeError("secret")

    box.close = close  # type: ignore[method-assign]
    delivery_of(box, counts).close(30.0)
    assert caplog.messages == ["things: cannot be closed: RuntimeError"]
