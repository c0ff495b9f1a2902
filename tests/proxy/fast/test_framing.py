"""Messages out of pieces, whatever the pieces; nothing past the limit is put together or inflated."""

import asyncio
import gzip
import random
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.proxy.fast.framing import Inbox, Malformed, TooLarge, framed, inflated, pack

MOST = 1000
MESSAGES = st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=12)


def drained(inbox: Inbox) -> list[tuple[bool, bytes]]:
    found = []
    while (message := inbox.take()) is not None:
        found.append((inbox.compressed, message))
    return found


@given(MESSAGES, st.lists(st.integers(1, 50), min_size=1), st.booleans())
def test_messages_come_out_as_they_went_in(messages: list[tuple[bool, bytes]], cuts: list[int], late: bool) -> None:
    raw = b"".join(pack(flag, len(body)) + body for flag, body in messages)
    inbox, found, at, turn = Inbox(MOST), [], 0, 0
    while at < len(raw):
        size = cuts[turn % len(cuts)]
        inbox.add(raw[at : at + size], at + size >= len(raw))
        at, turn = at + size, turn + 1
        if not late:
            found += drained(inbox)
    inbox.add(b"", True)
    found += drained(inbox)
    assert found == messages
    assert inbox.size == 0


@given(st.binary(max_size=40), st.integers(1, 7))
def test_any_bytes_are_messages_or_refused(raw: bytes, size: int) -> None:
    inbox, taken = Inbox(20), 0
    try:
        for at in range(0, len(raw), size):
            inbox.add(raw[at : at + size], at + size >= len(raw))
            taken += sum(5 + len(body) for _, body in drained(inbox))
    except (TooLarge, Malformed):
        return
    assert taken + inbox.size == len(raw)
    assert not (inbox.ended and inbox.size)


def test_waking_says_when_there_is_news() -> None:
    inbox = Inbox(MOST)
    assert not inbox.add(b"\0\0\0", False)
    assert inbox.add(b"\0\x03a", False)
    assert inbox.take() is None
    assert inbox.need == 8
    assert not inbox.add(b"b", False)
    assert inbox.add(b"c", False)
    assert inbox.take() == b"abc"
    assert inbox.add(b"", True)
    assert inbox.take() is None


@pytest.mark.parametrize("raw", [b"\0", b"\0\0\0\0", b"\0\0\0\0\x02a"])
def test_half_a_message_is_none(raw: bytes) -> None:
    inbox = Inbox(MOST)
    inbox.add(raw, True)
    with pytest.raises(Malformed):
        inbox.take()


def test_limits_hold_before_the_message_is_there() -> None:
    inbox = Inbox(MOST)
    inbox.add(pack(0, MOST + 1), False)
    with pytest.raises(TooLarge, match="1001"):
        inbox.take()
    inbox = Inbox(MOST)
    inbox.add(pack(2, 1) + b"x", False)
    with pytest.raises(Malformed):
        inbox.take()


def test_many_small_messages_in_one_piece_take_linear_time() -> None:
    inbox = Inbox(MOST)
    inbox.add(pack(0, 0) * 200_000, True)
    started = time.process_time()
    assert len(drained(inbox)) == 200_000
    assert time.process_time() - started < 5


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [0, 10, 70_000, 500_000])
async def test_what_is_compressed_comes_back(encoding: str, size: int) -> None:
    body = random.Random(0).randbytes(10) * (size // 10)
    prefix, sent = await framed(body, encoding)
    assert int.from_bytes(prefix[1:], "big") == len(sent)
    if size > 10:
        assert prefix[0] == 1
        assert await inflated(sent, encoding, size) == body
        with pytest.raises(TooLarge):
            await inflated(sent, encoding, size - 1)
    else:
        assert (prefix[0], sent) == (0, body)


@pytest.mark.parametrize("nested", [1, 2])
async def test_bombs_are_not_inflated(nested: int) -> None:
    bomb = bytes(200_000_000)
    for _ in range(nested):
        bomb = gzip.compress(bomb)
    tracemalloc.start()
    try:
        if nested == 1:
            with pytest.raises(TooLarge):
                await inflated(bomb, "gzip", 1_000_000)
        else:
            assert len(await inflated(bomb, "gzip", 1_000_000)) < 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("message", "encoding"),
    [
        (b"", "gzip"),
        (b"\x1f\x8b", "gzip"),
        (b"no gzip", "gzip"),
        (gzip.compress(b"x") + b"more", "gzip"),
        (gzip.compress(b"x"), "deflate"),
        (zlib.compress(b"x")[:-1], "deflate"),
        (b"x", "identity"),
        (b"x", "br"),
    ],
)
async def test_what_cannot_be_inflated_is_no_message(message: bytes, encoding: str) -> None:
    with pytest.raises(Malformed):
        await inflated(message, encoding, MOST)


async def test_large_ones_leave_the_loop_alone() -> None:
    _, sent = await framed(bytes(80_000_000), "gzip")
    work = asyncio.create_task(inflated(sent, "gzip", 80_000_000))
    turns = 0
    while not work.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 1
    assert len(await work) == 80_000_000


def test_small_pieces_take_no_more_than_what_they_hold() -> None:
    inbox, body = Inbox(100_000), bytes(range(256)) * 200
    raw = pack(0, len(body)) + body
    tracemalloc.start()
    for at in range(len(raw)):
        inbox.add(raw[at : at + 1], False)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 4 * len(raw)
    message = inbox.take()
    assert type(message) is bytes
    assert message == body


async def test_a_large_message_that_inflates_to_nothing_does_not_hold_the_loop() -> None:
    message = b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 20_000 + b"\x01\x00\x00\xff\xff" + b"\x00\x00\x00\x01"
    assert zlib.decompress(message) == b""
    work = asyncio.create_task(inflated(message, "deflate", MOST))
    await asyncio.sleep(0)
    assert not work.done()  # it is in a thread
    assert await work == b""
