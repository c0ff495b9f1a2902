"""Two sessions of the binding talk to each other, without a socket."""

import gc
import random
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from guard.proxy.fast import library
from guard.proxy.fast.library import CLOSED, DATA, DRAINED, GOAWAY, HEADERS, SETTINGS, Event, Session

REQUEST = ((":method", "POST"), (":scheme", "http"), (":path", "/a/B"), (":authority", "x"), ("te", "trailers"))
RESPONSE = ((":status", "200"), ("content-type", "application/grpc"))
TRAILERS = (("grpc-status", "0"),)


def session(*, server: bool, **changes: int) -> Session:
    values = {
        "stream_window": 65_536,
        "connection_window": 1 << 20,
        "max_frame": 16_384,
        "max_streams": 100,
        "max_header_bytes": 8192,
        **changes,
    }
    return library.session(server=server, **values)


def pair(**changes: int) -> tuple[Session, Session]:
    client, server = session(server=False), session(server=True, **changes)
    assert kinds(carry(client, server)) == [SETTINGS]
    assert kinds(carry(server, client)) == [SETTINGS]
    carry(client, server)
    return client, server


def carry(sender: Session, receiver: Session) -> list[Event]:
    """Everything that is to be sent now."""
    events = []
    while data := sender.send(1 << 16):
        events += receiver.receive(data)
    return events


def kinds(events: list[Event]) -> list[int]:
    return [event[0] for event in events]


def test_a_call_there_and_back():
    client, server = pair()
    number = client.request((*REQUEST, (b"x-bytes", b"\xc3\xa9")), True, b"12345", b"", b"message")
    head, data = carry(client, server)
    assert head == (HEADERS, number, (*REQUEST, ("x-bytes", "é")), False)
    assert data == (DATA, number, b"12345message", True)
    assert server.respond(number, RESPONSE, TRAILERS, b"an", b"swer") == 0
    assert carry(server, client) == [
        (HEADERS, number, RESPONSE, False),
        (DATA, number, b"answer", False),
        (HEADERS, number, TRAILERS, True),
    ]
    assert not client.pending
    assert client.alive


def test_an_answer_of_headers_alone_and_one_that_goes_on():
    client, server = pair()
    first, second = client.request(REQUEST, True), client.request(REQUEST, False)
    carry(client, server)
    server.respond(first, (*RESPONSE, *TRAILERS), False)
    server.respond(second, RESPONSE, None)
    assert [event[3] for event in carry(server, client)] == [True, False]
    assert server.write(second, b"one") == 0
    assert carry(server, client) == [(DATA, second, b"one", False)]
    assert client.write(second, b"two") == 0
    client.finish(second, None)
    assert carry(client, server) == [(DATA, second, b"two", True)]
    server.finish(second, TRAILERS)
    assert carry(server, client) == [(HEADERS, second, TRAILERS, True)]
    assert server.write(second, b"late") == client.write(second, b"late") == -1


def test_windows_hold_data_back_until_they_are_opened():
    client, server = pair(stream_window=65_536)
    body = random.Random(0).randbytes(200_000)
    number = client.request(REQUEST, True, body)
    assert client.notify(number)
    arrived = b"".join(event[2] for event in carry(client, server) if event[0] == DATA)
    assert len(arrived) == 65_536
    assert client.queued == 200_000 - 65_536
    server.consume(number, len(arrived))
    carry(server, client)
    arrived += b"".join(event[2] for event in carry(client, server) if event[0] == DATA)
    assert len(arrived) == 2 * 65_536
    server.enlarge(number, 200_000)
    carry(server, client)
    events = carry(client, server)
    arrived += b"".join(event[2] for event in events if event[0] == DATA)
    assert arrived == body
    assert kinds(client.take()) == [DRAINED]
    assert not client.notify(number)


def test_the_window_of_a_connection_opens_by_itself():
    client, server = pair(stream_window=1 << 20)
    bodies = {client.request(REQUEST, True, bytes(900_000)): 0 for _ in range(5)}
    for _ in range(50):
        for kind, number, payload, _ in carry(client, server):
            if kind == DATA:
                bodies[number] += len(payload)
        carry(server, client)
    assert set(bodies.values()) == {900_000}


def test_data_of_a_stream_come_as_one_event_a_read():
    client, server = pair()
    numbers = [client.request(REQUEST, True, bytes([n]) * 40_000) for n in range(3)]
    raw = b""
    while data := client.send(1 << 20):
        raw += data
    events = server.receive(raw)
    assert sorted(event[1] for event in events if event[0] == DATA) == numbers
    assert {event[2] for event in events if event[0] == DATA} == {bytes([n]) * 40_000 for n in range(3)}


def test_any_cut_of_the_bytes_says_the_same():
    client, server = pair()
    client.request(REQUEST, True, bytes(5000))
    raw = client.send(1 << 20)
    whole, parts = session(server=True), session(server=True)
    preface = session(server=False).send(1 << 20)
    expected = whole.receive(preface + raw)
    parts.receive(preface)
    found = [event for at in range(len(raw)) for event in parts.receive(raw[at : at + 1])]
    assert b"".join(e[2] for e in found if e[0] == DATA) == b"".join(e[2] for e in expected if e[0] == DATA)
    assert [e for e in found if e[0] == HEADERS] == [e for e in expected if e[0] == HEADERS]
    assert kinds(server.receive(raw)) == [HEADERS, DATA]


def test_resets_are_told_to_the_other_side_only():
    client, server = pair()
    number = client.request(REQUEST, False, b"x")
    carry(client, server)
    client.reset(number, 8)
    assert carry(client, server) == [(CLOSED, number, 8, False)]
    assert not client.pending
    assert server.respond(number, RESPONSE, TRAILERS) == -1
    other = client.request(REQUEST, True)
    carry(client, server)
    server.reset(other, 11)
    assert carry(server, client) == [(CLOSED, other, 11, False)]


def test_goaway_says_which_stream_was_the_last():
    client, server = pair()
    number = client.request(REQUEST, True)
    carry(client, server)
    server.goaway(None)
    assert carry(server, client)[0][:2] == (GOAWAY, 2**31 - 1)
    server.goaway(0)
    assert carry(server, client)[0][:3] == (GOAWAY, number, 0)
    assert not client.may_request
    server.respond(number, (*RESPONSE, *TRAILERS), False)
    carry(server, client)
    assert not server.alive


def test_a_request_that_never_left_may_be_made_again():
    client, server = pair(max_streams=1)
    first, second = client.request(REQUEST, False), client.request(REQUEST, True, b"waits")
    assert [event[1] for event in carry(client, server)] == [first]
    assert client.write(first, b"x") == 0
    server.goaway(0)
    events = carry(server, client)
    client.finish(first, None)
    carry(client, server)
    server.respond(first, (*RESPONSE, *TRAILERS), False)
    events += carry(server, client)
    carry(client, server)
    events += client.take()
    assert (CLOSED, second, 7, False) in events


def test_headers_past_the_limit_are_told_and_far_past_it_reset():
    client, server = pair(max_header_bytes=1000)
    number = client.request((*REQUEST, ("x", "v" * 2000)), True)
    assert carry(client, server) == [(HEADERS, number, None, False), (DATA, number, b"", True)]
    server.reset(number, 8)
    number = client.request((*REQUEST, *((f"x{n}", "v" * 100) for n in range(100))), True)
    assert carry(client, server) == []
    assert server.noise >= 100
    assert carry(server, client)[-1][0] == CLOSED


def test_floods_are_counted():
    client, server = pair()
    before = server.noise
    for _ in range(50):
        client.ping()
    carry(client, server)
    assert server.noise == before + 50


def test_continuations_end_the_session():
    _, server = pair()
    head = b"\0\0\1\1\0\0\0\0\1\x82" + 20 * b"\0\0\0\x09\0\0\0\0\1"
    with pytest.raises(library.ProtocolError):
        server.receive(head)


def test_what_is_no_http2_is_an_error():
    with pytest.raises(library.ProtocolError, match="receive: "):
        session(server=True).receive(b"GET / HTTP/1.1\r\n\r\n" * 3)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda s, n: s.respond(n, RESPONSE, TRAILERS, "text"), TypeError),
        (lambda s, n: s.respond(n, RESPONSE, TRAILERS, bytearray(b"x")), TypeError),
        (lambda s, n: s.respond(n, list(RESPONSE), TRAILERS), TypeError),
        (lambda s, n: s.respond(n, (("a",),), TRAILERS), TypeError),
        (lambda s, n: s.respond(n, ((1, 2),), TRAILERS), TypeError),
        (lambda s, n: s.respond(n, RESPONSE, ((None, "x"),)), TypeError),
        (lambda s, n: s.respond(n, RESPONSE), TypeError),
        (lambda s, n: s.respond(-1, RESPONSE, TRAILERS), ValueError),
        (lambda s, n: s.respond("1", RESPONSE, TRAILERS), TypeError),
        (lambda s, n: s.respond(n, RESPONSE * 3000, TRAILERS), TypeError),
        (lambda s, n: s.write(), TypeError),
        (lambda s, n: s.finish(n), TypeError),
        (lambda s, n: s.reset(n), TypeError),
        (lambda s, n: s.consume(n, "x"), TypeError),
        (lambda s, n: s.enlarge(n, 2**40), (ValueError, OverflowError)),
        (lambda s, n: s.send("x"), TypeError),
        (lambda s, n: s.receive("x"), TypeError),
        (lambda s, n: s.goaway("x"), TypeError),
    ],
)
def test_wrong_arguments_are_refused_and_the_session_lives(
    wrong: Callable[[Session, int], object], error: type[Exception]
) -> None:
    client, server = pair()
    number = client.request(REQUEST, True)
    carry(client, server)
    with pytest.raises(error):
        wrong(server, number)
    other = client.request(REQUEST, True)
    carry(client, server)
    assert server.respond(other, RESPONSE, TRAILERS, b"x") == 0
    assert (DATA, other, b"x", False) in carry(server, client)


def test_a_stream_is_answered_once():
    client, server = pair()
    number = client.request(REQUEST, False)
    carry(client, server)
    server.respond(number, RESPONSE, None)
    with pytest.raises(ValueError, match="has been answered"):
        server.respond(number, RESPONSE, None)
    server.finish(number, TRAILERS)
    with pytest.raises(ValueError, match="has ended"):
        server.write(number, b"x")
    assert server.finish(number, TRAILERS) == -1


@pytest.mark.parametrize("change", [{"max_frame": 1}, {"stream_window": -1}, {"connection_window": 0}])
def test_limits_out_of_bounds_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        session(server=True, **change)


def test_nothing_is_kept():
    """Bodies and trailers are let go of with their streams, and with the session."""
    body, trailers = b"b" * 10_000, (("grpc-status", "1"), ("x", "y"))
    counts = sys.getrefcount(body), sys.getrefcount(trailers)

    def round_trips() -> None:
        client, server = pair()
        for way in range(40):
            number = client.request(REQUEST, way % 2 == 0, body)
            carry(client, server)
            if way % 4 < 2:
                server.respond(number, RESPONSE, trailers, body, body)
            elif way % 4 == 2:
                server.reset(number, 8)
            carry(server, client)
            if way % 3 == 0:
                client.reset(number, 8)
        client.request(REQUEST, True, body, body)

    round_trips()
    gc.collect()
    assert (sys.getrefcount(body), sys.getrefcount(trailers)) == counts
    tracemalloc.start()
    try:
        round_trips()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            round_trips()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_noise_does_no_harm():
    """Mutated bytes of a real conversation: events or a ProtocolError, nothing else."""
    chance = random.Random(1)
    client = session(server=False)
    for _ in range(5):
        client.request(REQUEST, True, bytes(3000))
    raw = b""
    while data := client.send(1 << 20):
        raw += data
    for _ in range(3000):
        mutated = bytearray(raw)
        for _ in range(chance.randrange(1, 6)):
            mutated[chance.randrange(24, len(mutated))] = chance.randrange(256)
        server = session(server=True)
        try:
            for kind, number, _, _ in server.receive(bytes(mutated)):
                if kind == HEADERS:
                    server.respond(number, RESPONSE, TRAILERS, b"x")
            server.send(1 << 20)
        except (library.ProtocolError, ValueError):
            pass


def test_what_a_connection_holds_back_is_counted_over_all_of_its_streams():
    client, server = session(server=False, connection_window=65_535), session(server=True)
    numbers = [client.request(REQUEST, True) for _ in range(4)]
    carry(client, server)
    held = [server.respond(number, RESPONSE, TRAILERS, bytes(30_000)) for number in numbers]
    assert held[:2] == [0, 0]
    assert held[2] > 0


def test_a_stream_that_is_reset_without_an_error_before_its_answer_is_told() -> None:
    client, server = pair()
    number = client.request(REQUEST, True)
    carry(client, server)
    client.reset(number, 0)
    assert carry(client, server) == [(CLOSED, number, 0, False)]


def test_a_stream_that_was_answered_is_not_told_of_again() -> None:
    client, server = pair()
    number = client.request(REQUEST, True)
    carry(client, server)
    server.respond(number, RESPONSE, TRAILERS, b"answer")
    carry(server, client)
    assert carry(client, server) == []


def test_a_block_that_is_refused_is_over() -> None:
    client, server = pair(max_header_bytes=100)
    client.request((*REQUEST, ("x-large", "v" * 2000)), True)
    assert kinds(carry(client, server)) in ([], [HEADERS], [CLOSED])
    carry(server, client)
    assert not server.in_block


def test_frames_that_nobody_reads_are_counted() -> None:
    client, server = pair()
    while server.send(1 << 16):
        pass
    before = server.waiting
    for _ in range(50):
        client.ping()
    data = client.send(1 << 16)
    server.receive(data)
    assert server.waiting == before + 50


def test_streams_share_buckets_as_chance_has_it() -> None:
    """Ids that differ by a multiple of 512 would all be in one bucket of a table that goes by their low bits."""
    client, server = pair(max_streams=2000)
    for _ in range(1000):
        client.request(REQUEST, False)
    assert len([kind for kind in kinds(carry(client, server)) if kind == HEADERS]) == 1000
