"""Who may look: the token, how often a wrong one may be tried, sessions."""

import random

import pytest

from guard.proxy import door
from guard.proxy.door import GRPC, HERE, MANY, RETRY_S, SESSION_S, SESSIONS, TRIES, Door, Knock, visitor

RIGHT, WRONG = "Bearer the-token", "Bearer a-token"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(clock: Clock, token: str | None = "the-token") -> tuple[Door, list[str]]:
    refused: list[str] = []
    return Door(token, refused.append, clock), refused


def test_the_token_opens(clock: Clock) -> None:
    opened, refused = made(clock)
    assert opened.knock(RIGHT, HERE) is Knock.OPEN
    assert opened.knock("bearer  the-token ", HERE) is Knock.OPEN
    assert refused == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Knock.MISSING),
        ("", Knock.MISSING),
        ("Bearer ", Knock.MISSING),
        (WRONG, Knock.WRONG),
        ("Basic the-token", Knock.MISSING),
        ("Bearer the-token2", Knock.WRONG),
        ("Bearer the-toke", Knock.WRONG),
        ("Bearer \udcff", Knock.WRONG),
    ],
)
def test_nothing_else_does(clock: Clock, header: str | None, expected: Knock) -> None:
    opened, refused = made(clock)
    assert opened.knock(header, HERE) is expected
    assert opened.look(header, HERE) is expected
    assert refused == [expected.value] * 2


def test_without_a_token_nobody_enters(clock: Clock) -> None:
    shut, refused = made(clock, None)
    assert {shut.knock(header, HERE) for header in (None, "Bearer ", "Bearer None", RIGHT)} == {Knock.SHUT}
    assert refused == ["no_token_set"] * 4


def test_tries_are_few_and_come_back(clock: Clock) -> None:
    opened, refused = made(clock)
    session = f"Bearer {opened.seat()}"
    assert [opened.knock(WRONG, HERE) for _ in range(TRIES)] == [Knock.WRONG] * TRIES
    assert opened.knock(WRONG, HERE) is Knock.WAIT
    assert opened.knock(RIGHT, HERE) is Knock.WAIT, "or a guesser would know the right one by its answer"
    assert opened.look(session, HERE) is Knock.OPEN, "who is in stays in"
    assert refused[-2:] == ["too_many"] * 2
    clock.now += RETRY_S
    assert opened.knock(RIGHT, HERE) is Knock.OPEN
    assert opened.knock(WRONG, HERE) is Knock.WRONG
    assert opened.knock(RIGHT, HERE) is Knock.WAIT
    clock.now += 1000 * RETRY_S
    assert [opened.knock(WRONG, HERE) for _ in range(TRIES + 1)] == [*[Knock.WRONG] * TRIES, Knock.WAIT]


@pytest.mark.parametrize(("stranger", "operator"), [("10.0.0.7", HERE), ("10.0.0.7", GRPC), (HERE, GRPC), (GRPC, HERE)])
def test_nobody_takes_the_tries_of_another(clock: Clock, stranger: str, operator: str) -> None:
    opened, _ = made(clock)
    assert [opened.knock(WRONG, stranger) for _ in range(TRIES + 1)][-1] is Knock.WAIT
    assert opened.knock(RIGHT, operator) is Knock.OPEN
    assert opened.knock(WRONG, operator) is Knock.WRONG


def test_many_addresses_have_few_tries_together(clock: Clock) -> None:
    """Neither this host nor the other listener is among them."""
    opened, _ = made(clock)
    for number in range(MANY * TRIES):
        assert opened.knock(WRONG, f"10.0.{number // 256}.{number % 256}") is Knock.WRONG
    assert opened.knock(WRONG, "10.9.9.9") is Knock.WAIT
    assert {opened.knock(RIGHT, who) for who in (HERE, GRPC)} == {Knock.OPEN}
    clock.now += RETRY_S
    told = [opened.knock(WRONG, f"10.1.0.{number}") for number in range(MANY + 1)]
    assert told == [*[Knock.WRONG] * MANY, Knock.WAIT]
    for _ in range(1000):
        clock.now += RETRY_S / MANY
        opened.knock(WRONG, f"10.2.{random.randrange(256)}.{random.randrange(256)}")
    assert len(opened._tries) <= 2 * MANY * TRIES + 1


@pytest.mark.parametrize(
    ("address", "who"),
    [
        ("127.0.0.1", HERE),
        ("127.9.9.9", HERE),
        ("::1", HERE),
        ("::ffff:127.0.0.1", HERE),
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("2001:db8::1:2", "2001:db8::/56"),
        ("fe80::1%eth0", "fe80::1"),
        ("64:ff9b::a00:7", "64:ff9b::a00:7"),
        ("", "elsewhere"),
    ],
)
def test_whom_an_address_stands_for(address: str, who: str) -> None:
    assert visitor(address) == who


def test_knocking_with_nothing_takes_no_try(clock: Clock) -> None:
    opened, _ = made(clock)
    for _ in range(5 * TRIES):
        opened.knock(None, HERE)
    assert opened.knock(RIGHT, HERE) is Knock.OPEN


def test_a_session_looks_and_does_nothing_else(clock: Clock) -> None:
    opened, _ = made(clock)
    session = f"Bearer {opened.seat()}"
    assert opened.look(session, HERE) is Knock.OPEN
    assert opened.look(RIGHT, HERE) is Knock.OPEN
    assert opened.look(session.replace("Bearer", "Basic"), HERE) is Knock.MISSING
    assert opened.knock(session, HERE) is Knock.WRONG, "it is no token"


def test_a_session_ends(clock: Clock) -> None:
    opened, _ = made(clock)
    first, second = (f"Bearer {opened.seat()}" for _ in range(2))
    opened.leave(first)
    opened.leave("Bearer nobody's")
    assert opened.look(first, HERE) is Knock.WRONG
    assert opened.look(second, HERE) is Knock.OPEN
    clock.now += SESSION_S
    assert opened.look(second, HERE) is Knock.WRONG


def test_sessions_are_bounded_and_kept_as_digests(clock: Clock) -> None:
    opened, _ = made(clock)
    sessions = [opened.seat() for _ in range(SESSIONS + 1)]
    assert opened.look(f"Bearer {sessions[0]}", HERE) is Knock.WRONG
    assert {opened.look(f"Bearer {one}", HERE) for one in sessions[1:]} == {Knock.OPEN}
    assert not any(one in repr(vars(opened)) for one in sessions)


def test_the_comparison_is_the_constant_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(given: bytes, right: bytes) -> bool:
        compared.append(given)
        return given == right

    monkeypatch.setattr(door.hmac, "compare_digest", compare)
    assert door.has_token(RIGHT, "the-token")
    assert not door.has_token(None, "the-token")
    assert compared == [b"the-token", b""]
