"""Puzzles: proof of work that nobody has to remember, and that is checked with a few hashes.

Source:  calibrated proof of work against extraction, Dziedzic et al. 2022, arXiv:2201.09243; client puzzles of several
         parts, Juels, Brainard 1999 (NDSS); one hash function and a counter, Back 2002 (Hashcash).
Form:    `1:ROWS:TTL:EXPIRES:TARGET:NONCE:MAC`, ASCII: rows that it pays for, its life in s, its end in s since 1970,
         then hex: 64-bit target, 16 bytes that make it unique, 16 bytes by which its issuer knows it again.
         A proof is that, a colon and 16 counters in hex with commas between.
Parts:   part i has the seed SHA-256(puzzle + byte i); its counter is good where the first 8 bytes, big-endian, of
         SHA-256(seed + 8 bytes of counter, big-endian) are less than the target. A part takes 2^64 / target tries on
         average. The number of tries for all of them varies by 1 / sqrt(16) of itself; for one part it would by all.
Bound:   the MAC covers the caller and the model, so another's puzzle is none.
"""

import hmac
import math
import re
from dataclasses import dataclass
from hashlib import blake2b, sha256

PARTS = 16
MAX_ROWS = 10**7
MAX_PROOF_CHARS = 512
_WORDS = 2.0**64
_MAC_BYTES = 16
_PUZZLE = re.compile(r"1:(\d{1,8}):(\d{1,6}):(\d{1,12}):([0-9a-f]{16}):([0-9a-f]{32}):([0-9a-f]{32})", re.ASCII)
_COUNTERS = re.compile(r"[0-9a-f]{1,16}(,[0-9a-f]{1,16}){15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Puzzle:
    """rows: that it pays for. ttl_s: its life; expires: its end, in whole seconds since 1970, by its issuer's clock."""

    rows: int
    ttl_s: int
    expires: int
    target: int
    nonce: bytes
    mac: bytes = b""

    @property
    def head(self) -> str:
        """All but the MAC."""
        return f"1:{self.rows}:{self.ttl_s}:{self.expires}:{self.target:016x}:{self.nonce.hex()}"

    @property
    def text(self) -> str:
        """As it travels."""
        return f"{self.head}:{self.mac.hex()}"

    @property
    def hashes(self) -> float:
        """That solving it takes on average."""
        return PARTS * _WORDS / max(1, self.target)


@dataclass(frozen=True, slots=True)
class Proof:
    """A puzzle with what is said to solve it."""

    puzzle: Puzzle
    counters: tuple[int, ...]

    @property
    def text(self) -> str:
        """As it travels."""
        return f"{self.puzzle.text}:{','.join(f'{counter:x}' for counter in self.counters)}"

    @property
    def good(self) -> bool:
        """Whether it does: at most 2 * 16 hashes. Says nothing of whose puzzle it is."""
        target, text = self.puzzle.target, self.puzzle.text.encode()
        return len(self.counters) == PARTS and all(
            int.from_bytes(sha256(seed(text, part) + counter.to_bytes(8, "big")).digest()[:8], "big") < target
            for part, counter in enumerate(self.counters)
        )


def seed(text: bytes, part: int) -> bytes:
    """What the tries of one part of a puzzle begin with."""
    return sha256(text + bytes((part,))).digest()


def read_puzzle(text: str) -> Puzzle | None:
    """None where it is none."""
    found = _PUZZLE.fullmatch(text)
    if found is None:
        return None
    rows, ttl_s, expires, target, nonce, mac = found.groups()
    return Puzzle(int(rows), int(ttl_s), int(expires), int(target, 16), bytes.fromhex(nonce), bytes.fromhex(mac))


def read_proof(text: str) -> Proof | None:
    """None where it is none. Costs nothing for a long text."""
    if len(text) > MAX_PROOF_CHARS:
        return None
    head, _, tail = text.rpartition(":")
    puzzle = read_puzzle(head)
    if puzzle is None or _COUNTERS.fullmatch(tail) is None:
        return None
    return Proof(puzzle, tuple(int(counter, 16) for counter in tail.split(",")))


class Issuer:
    """Makes puzzles and knows them again, anywhere with the same secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = blake2b(secret, person=b"guard challenge", digest_size=32).digest()

    def issue(
        self, model: str, caller: str, *, rows: int, hashes: float, ttl_s: float, nonce: bytes, now: float
    ) -> Puzzle:
        """hashes: of work, on average; nonce: 16 bytes that never came before; now: in seconds since 1970."""
        rows, life = min(rows, MAX_ROWS), max(1, round(ttl_s))
        target = int(max(1.0, min(_WORDS - 2048.0, PARTS * _WORDS / hashes)))  # 2048: the last double below 2^64
        bare = Puzzle(rows, life, math.ceil(now) + life, target, nonce)
        return Puzzle(rows, life, bare.expires, target, nonce, self._mac(bare, model, caller))

    def knows(self, puzzle: Puzzle, model: str, caller: str) -> bool:
        """Whether the puzzle was made here, for this caller and model."""
        return hmac.compare_digest(puzzle.mac, self._mac(puzzle, model, caller))

    def _mac(self, puzzle: Puzzle, model: str, caller: str) -> bytes:
        whose = b"".join(len(part).to_bytes(8, "big") + part for part in (model.encode(), caller.encode()))
        said = whose + puzzle.head.encode()
        return blake2b(said, key=self._key, digest_size=_MAC_BYTES, person=b"guard puzzle").digest()
