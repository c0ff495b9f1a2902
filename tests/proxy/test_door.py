"""Who may look: the token, how often a wrong one may be tried, sessions."""

import pytest

from guard.proxy import door
from guard.proxy.door import RETRY_S, SESSION_S, SESSIONS, TRIES, Door, Knock

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
    assert opened.knock(RIGHT) is Knock.OPEN
    assert opened.knock("bearer  the-token ") is Knock.OPEN
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
    assert opened.knock(header) is expected
    assert opened.look(header) is expected
    assert refused == [expected.value] * 2


def test_without_a_token_nobody_enters(clock: Clock) -> None:
    shut, refused = made(clock, None)
    assert {shut.knock(header) for header in (None, "Bearer ", "Bearer None", RIGHT)} == {Knock.SHUT}
    assert refused == ["no_token_set"] * 4


def test_tries_are_few_and_come_back(clock: Clock) -> None:
    opened, refused = made(clock)
    session = f"Bearer {opened.seat()}"
    assert [opened.knock(WRONG) for _ in range(TRIES)] == [Knock.WRONG] * TRIES
    assert opened.knock(WRONG) is Knock.WAIT
    assert opened.knock(RIGHT) is Knock.WAIT, "or a guesser would know the right one by its answer"
    assert opened.look(session) is Knock.OPEN, "who is in stays in"
    assert refused[-2:] == ["too_many"] * 2
    clock.now += RETRY_S
    assert opened.knock(RIGHT) is Knock.OPEN
    assert opened.knock(WRONG) is Knock.WRONG
    assert opened.knock(RIGHT) is Knock.WAIT
    clock.now += 1000 * RETRY_S
    assert [opened.knock(WRONG) for _ in range(TRIES + 1)] == [*[Knock.WRONG] * TRIES, Knock.WAIT]


def test_knocking_with_nothing_takes_no_try(clock: Clock) -> None:
    opened, _ = made(clock)
    for _ in range(5 * TRIES):
        opened.knock(None)
    assert opened.knock(RIGHT) is Knock.OPEN


def test_a_session_looks_and_does_nothing_else(clock: Clock) -> None:
    opened, _ = made(clock)
    session = f"Bearer {opened.seat()}"
    assert opened.look(session) is Knock.OPEN
    assert opened.look(RIGHT) is Knock.OPEN
    assert opened.look(session.replace("Bearer", "Basic")) is Knock.MISSING
    assert opened.knock(session) is Knock.WRONG, "it is no token"


def test_a_session_ends(clock: Clock) -> None:
    opened, _ = made(clock)
    first, second = (f"Bearer {opened.seat()}" for _ in range(2))
    opened.leave(first)
    opened.leave("Bearer nobody's")
    assert opened.look(first) is Knock.WRONG
    assert opened.look(second) is Knock.OPEN
    clock.now += SESSION_S
    assert opened.look(second) is Knock.WRONG


def test_sessions_are_bounded_and_kept_as_digests(clock: Clock) -> None:
    opened, _ = made(clock)
    sessions = [opened.seat() for _ in range(SESSIONS + 1)]
    assert opened.look(f"Bearer {sessions[0]}") is Knock.WRONG
    assert {opened.look(f"Bearer {one}") for one in sessions[1:]} == {Knock.OPEN}
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
