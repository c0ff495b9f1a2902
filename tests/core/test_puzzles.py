"""Puzzles with plain bytes: who knows them, what solves them, how long that takes."""

from dataclasses import replace
from hashlib import sha256
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.puzzles import MAX_PROOF_CHARS, MAX_ROWS, PARTS, Issuer, Proof, Puzzle, read_proof, read_puzzle, seed

ISSUER = Issuer(b"a secret of sixteen bytes")
NOW = 1_800_000_000.5


def issue(hashes: float = 100.0, *, rows: int = 3, nonce: bytes = b"n" * 16, ttl_s: float = 60.0) -> Puzzle:
    return ISSUER.issue("m", "peer:1", rows=rows, hashes=hashes, ttl_s=ttl_s, nonce=nonce, now=NOW)


def tries(text: str, target: int, part: int) -> int:
    """The first counter that solves a part, by the form's own words."""
    begin = sha256(text.encode() + bytes([part])).digest()
    return next(
        n
        for n in count()
        if int.from_bytes(sha256(begin + n.to_bytes(8, "big")).digest()[:8], "big") < target
    )  # fmt: skip


def solved(puzzle: Puzzle) -> Proof:
    return Proof(puzzle, tuple(tries(puzzle.text, puzzle.target, part) for part in range(PARTS)))


def test_what_is_issued_is_known_and_says_what_it_is_for() -> None:
    puzzle = issue()
    assert ISSUER.knows(puzzle, "m", "peer:1")
    assert (puzzle.rows, puzzle.ttl_s, puzzle.expires, puzzle.nonce) == (3, 60, 1_800_000_061, b"n" * 16)
    assert puzzle.hashes == pytest.approx(100.0)
    assert read_puzzle(puzzle.text) == puzzle
    assert seed(puzzle.text.encode(), 3) == sha256(puzzle.text.encode() + b"\3").digest()


def test_another_process_with_the_secret_knows_it_and_no_other_does() -> None:
    puzzle = issue()
    assert Issuer(b"a secret of sixteen bytes").knows(puzzle, "m", "peer:1")
    assert not Issuer(b"another secret, sixteen").knows(puzzle, "m", "peer:1")


@pytest.mark.parametrize(
    "changed",
    [{"rows": 4}, {"ttl_s": 61}, {"expires": 1_900_000_000}, {"target": 2**64 - 1}, {"nonce": b"o" * 16}],
)
def test_a_field_that_was_changed_makes_it_unknown(changed: dict) -> None:
    assert not ISSUER.knows(replace(issue(), **changed), "m", "peer:1")


@pytest.mark.parametrize(("model", "caller"), [("m", "peer:2"), ("n", "peer:1"), ("mp", "eer:1")])
def test_it_is_for_one_caller_and_one_model(model: str, caller: str) -> None:
    assert not ISSUER.knows(issue(), model, caller)


def test_a_solution_travels_and_is_good_and_a_wrong_one_is_not() -> None:
    proof = solved(issue())
    assert read_proof(proof.text) == proof
    assert proof.good
    wrong = replace(proof, counters=(*proof.counters[:-1], proof.counters[-1] + 10**6))
    first = replace(proof, counters=(*reversed(proof.counters),))
    assert [one.good for one in (wrong, first, replace(proof, counters=proof.counters[1:]))] == [False] * 3
    assert not replace(proof, puzzle=replace(proof.puzzle, nonce=b"o" * 16)).good  # solves no other puzzle


def test_the_longest_proof_fits() -> None:
    puzzle = Puzzle(MAX_ROWS, 999_999, 10**12 - 1, 2**64 - 1, b"\xff" * 16, b"\xff" * 16)
    proof = Proof(puzzle, (2**64 - 1,) * PARTS)
    assert len(proof.text) <= MAX_PROOF_CHARS
    assert read_proof(proof.text) == proof


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda text: "",
        lambda text: text[1:],
        lambda text: "2" + text[1:],
        lambda text: text.rpartition(":")[0],
        lambda text: text.rpartition(",")[0],
        lambda text: text + ",0",
        lambda text: text + ",",
        lambda text: text.replace(":", ";"),
        lambda text: text.upper(),
        lambda text: text.replace("1:3:", "1:-3:"),
        lambda text: text.replace("1:3:", "1:\u0663:"),
        lambda text: text + "0" * 600,
        lambda text: "1:" * 10_000,
        lambda text: text + "\n",
    ],
)
def test_what_is_no_proof_is_none(spoilt: object) -> None:
    text = solved(issue(nonce=b"\xab" * 16)).text
    assert read_proof(text) is not None
    assert read_proof(spoilt(text)) is None  # type: ignore[operator]


@given(st.text(max_size=400))
def test_any_text_is_read_or_is_none(text: str) -> None:
    assert read_proof(text) is None
    assert read_puzzle(text) is None


@pytest.mark.parametrize(
    ("hashes", "target"),
    [
        (16.0, 2**64 - 2048),  # each try is good, nearly
        (1.0, 2**64 - 2048),
        (32.0, 2**63),
        (16.0 * 2**40, 2**24),
        (3.0 * 16, 6_148_914_691_236_517_888),  # a third, as a double has it
        (2.0**80, 1),
        (2.0**200, 1),
    ],
)
def test_a_target_is_sixteen_words_over_the_work(hashes: float, target: int) -> None:
    puzzle = issue(hashes)
    assert puzzle.target == pytest.approx(target, rel=1e-12)
    assert puzzle.hashes == pytest.approx(max(16.0, min(hashes, 2.0**68)), rel=1e-12)


def test_rows_and_lives_are_whole_and_bounded() -> None:
    assert issue(rows=10**9).rows == MAX_ROWS
    assert issue(ttl_s=0.1).ttl_s == 1
    assert read_puzzle(issue(rows=10**9, ttl_s=3600).text) is not None
    assert Puzzle(1, 1, 1, 0, b"").hashes == 2.0**68


def test_sixteen_parts_take_what_was_asked_for_and_vary_little() -> None:
    """Of 60 puzzles of 800 hashes: each part geometric with mean 50, their sum with a deviation of a quarter."""
    work = np.array([sum(n + 1 for n in solved(issue(800.0, nonce=bytes([i]) * 16)).counters) for i in range(60)])
    assert abs(work.mean() / 800.0 - 1.0) < 3.3 * 0.25 / 60**0.5
    assert 0.15 < work.std() / work.mean() < 0.40  # of one part it would be 1
