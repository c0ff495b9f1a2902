"""The client's side of `challenge`: solves Guard's puzzles. Needs grpcio and the standard library.

    channel = grpc.intercept_channel(grpc.insecure_channel("127.0.0.1:9000"), Prover())
    channel = grpc.aio.insecure_channel("127.0.0.1:9000", interceptors=[AioProver()])

A unary call that is refused with a puzzle is made again with its solution. An answer that was paid for brings the next
puzzle, which a thread solves meanwhile, so that the next call finds it solved; that takes the time of one core, and of
the interpreter, away from what runs beside it. `.future()` of a synchronous stub waits until it is answered.
Limits. A puzzle of more than `max_hashes`, and one that is not solved in time, is left unsolved: the caller gets the
refusal, FAILED_PRECONDITION. Time is the call's own deadline, else `timeout_s`. On a stream solve by hand: `puzzle_of`
its error, `solve`, and begin another with the metadata `guard-proof`.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import grpc
from grpc import aio

from guard.puzzles import PARTS, Proof, Puzzle, read_puzzle, seed

PROOF_KEY, PUZZLE_KEY = "guard-proof", "guard-puzzle"
ATTEMPTS = 3
"""Of one call: the price may rise while a puzzle is being solved."""
MAX_HASHES = 50_000_000.0
"""About 20 s of one core."""
_MAX_AHEAD = 64
_TRIES_A_LOOK = 4096  # at the clock

Metadata = Sequence[tuple[str, str | bytes]]


class UnsolvedError(Exception):
    """The puzzle is none, is more work than one is ready to do, or was not solved in time."""


def solve(puzzle: str, *, max_hashes: float = MAX_HASHES, timeout_s: float | None = None) -> str:
    """What to send as `guard-proof`. Raises UnsolvedError."""
    found = read_puzzle(puzzle)
    if found is None or not found.target:
        raise UnsolvedError("this is no puzzle")
    if found.hashes > max_hashes:
        raise UnsolvedError(f"the puzzle takes about {found.hashes:.3g} hashes, and {max_hashes:.3g} are the most")
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    text = puzzle.encode()
    return Proof(found, tuple(_solve(seed(text, part), found.target, ends) for part in range(PARTS))).text


def _solve(begin: bytes, target: int, ends: float | None) -> int:
    fresh, below = sha256(begin).copy, target.to_bytes(8, "big")  # a digest is less where its first 8 bytes are
    for first in itertools.count(0, _TRIES_A_LOOK):
        if ends is not None and time.monotonic() >= ends:
            break
        for counter in range(first, first + _TRIES_A_LOOK):
            tried = fresh()
            tried.update(counter.to_bytes(8, "big"))
            if tried.digest() < below:
                return counter
    raise UnsolvedError("the puzzle was not solved in time")


def puzzle_of(ended: Any) -> str | None:
    """The puzzle in the trailers of an error or a finished call; None where there is none."""
    return _named(ended.trailing_metadata(), PUZZLE_KEY)


def _named(metadata: Iterable[Any] | None, name: str) -> str | None:
    return next((value for key, value in metadata or () if key == name and isinstance(value, str)), None)


@dataclass(eq=False)
class _Ahead:
    """A puzzle that is solved by whoever comes first: the thread beside, or the call that needs it."""

    puzzle: Puzzle
    max_hashes: float
    until: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    solved: str | None = None

    def proof(self, timeout_s: float) -> str:
        """Raises UnsolvedError."""
        ends = time.monotonic() + timeout_s
        if not self.lock.acquire(timeout=max(0.0, timeout_s)):
            raise UnsolvedError("the puzzle was not solved in time")
        try:
            if self.solved is None:
                left_s = ends - time.monotonic()
                self.solved = solve(self.puzzle.text, max_hashes=self.max_hashes, timeout_s=left_s)
            return self.solved
        finally:
            self.lock.release()


class _Bank:
    """Puzzles for calls to come, by method and model."""

    def __init__(self, max_hashes: float, timeout_s: float) -> None:
        self.max_hashes, self.timeout_s = max_hashes, timeout_s
        self._held: OrderedDict[tuple[str, str], deque[_Ahead]] = OrderedDict()
        self._lock = threading.Lock()
        self._todo: queue.SimpleQueue[_Ahead | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, key: tuple[str, str], text: str | None) -> None:
        """Keep a puzzle, and have it solved."""
        puzzle = None if text is None else read_puzzle(text)
        if puzzle is None or not puzzle.target or puzzle.hashes > self.max_hashes:
            return
        made = _Ahead(puzzle, self.max_hashes, time.monotonic() + 0.9 * puzzle.ttl_s)
        with self._lock:
            self._held.setdefault(key, deque(maxlen=_MAX_AHEAD)).append(made)
            self._held.move_to_end(key)
            while len(self._held) > _MAX_AHEAD:
                self._held.popitem(last=False)
            if self._thread is None:
                self._thread = threading.Thread(target=_work, args=(self._todo, self.timeout_s), daemon=True)
                self._thread.start()
        self._todo.put(made)

    def take(self, key: tuple[str, str]) -> _Ahead | None:
        """A puzzle that is still good, the oldest first."""
        with self._lock:
            held = self._held.get(key, deque())
            while held:
                made = held.popleft()
                if made.until > time.monotonic():
                    return made
        return None

    def prepaid(self, key: tuple[str, str], left_s: float) -> str | None:
        """A proof for a call that begins; None where there is none to be had."""
        held = self.take(key)
        try:
            return None if held is None else held.proof(left_s)
        except UnsolvedError:
            return None

    def solved(self, text: str, left_s: float) -> str | None:
        """A proof for a call that was refused; None where it stays so."""
        try:
            return solve(text, max_hashes=self.max_hashes, timeout_s=left_s)
        except UnsolvedError:
            return None

    def close(self) -> None:
        """End the thread."""
        self._todo.put(None)


def _work(todo: "queue.SimpleQueue[_Ahead | None]", timeout_s: float) -> None:
    while (made := todo.get()) is not None:
        if made.until > time.monotonic():
            try:
                made.proof(timeout_s)
            except UnsolvedError:
                continue


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Metadata | None
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Try(NamedTuple):
    """What one attempt has to go with. ends: on the monotonic clock; bound: whether the caller said so."""

    ends: float
    bound: bool

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends - time.monotonic())

    @property
    def timeout(self) -> float | None:
        return self.left_s if self.bound else None


def _begun(timeout: float | None, timeout_s: float) -> _Try:
    return _Try(time.monotonic() + (timeout_s if timeout is None else timeout), timeout is not None)


def _key(method: Any, request: Any) -> tuple[str, str]:
    name = method.decode() if isinstance(method, bytes) else str(method)
    return name, str(getattr(request, "model_name", ""))


def _proofs(proof: str | None) -> tuple[tuple[str, str], ...]:
    return () if proof is None else ((PROOF_KEY, proof),)


class Prover(grpc.UnaryUnaryClientInterceptor):
    """Of a synchronous channel. Share it between channels to one Guard, not between Guards.

    max_hashes: the most work that a puzzle may take. timeout_s: for calls without a deadline of their own.
    """

    def __init__(self, *, max_hashes: float = MAX_HASHES, timeout_s: float = 30.0) -> None:
        self._bank = _Bank(max_hashes, timeout_s)

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """One call, and what it takes to have it answered."""
        details, key = client_call_details, _key(client_call_details.method, request)
        going = _begun(details.timeout, self._bank.timeout_s)
        proof = self._bank.prepaid(key, going.left_s)
        for further in reversed(range(ATTEMPTS)):
            metadata = (*(details.metadata or ()), *_proofs(proof))
            call = continuation(_with(details, metadata, going.timeout), request)
            puzzle = _named(call.trailing_metadata(), PUZZLE_KEY)
            if call.code() is not grpc.StatusCode.FAILED_PRECONDITION or puzzle is None:
                self._bank.put(key, puzzle)
                break
            proof = self._bank.solved(puzzle, going.left_s) if further else None
            if proof is None:
                break
        return call

    def close(self) -> None:
        """End the thread that solves ahead."""
        self._bank.close()


def _with(details: Any, metadata: Metadata, timeout: float | None) -> _Details:
    return _Details(
        details.method,
        timeout,
        metadata,
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),
    )


class AioProver(aio.UnaryUnaryClientInterceptor):
    """Of an asyncio channel; puzzles are solved in threads. Else as `Prover`."""

    def __init__(self, *, max_hashes: float = MAX_HASHES, timeout_s: float = 30.0) -> None:
        self._bank = _Bank(max_hashes, timeout_s)

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """One call, and what it takes to have it answered."""
        details, key = client_call_details, _key(client_call_details.method, request)
        going = _begun(details.timeout, self._bank.timeout_s)
        proof = await asyncio.to_thread(self._bank.prepaid, key, going.left_s)
        for further in reversed(range(ATTEMPTS)):
            metadata = aio.Metadata(*(details.metadata or ()), *_proofs(proof))
            call = await continuation(details._replace(metadata=metadata, timeout=going.timeout), request)
            code, puzzle = await call.code(), _named(await call.trailing_metadata(), PUZZLE_KEY)
            if code is not grpc.StatusCode.FAILED_PRECONDITION or puzzle is None:
                self._bank.put(key, puzzle)
                break
            proof = await asyncio.to_thread(self._bank.solved, puzzle, going.left_s) if further else None
            if proof is None:
                break
        return call

    def close(self) -> None:
        """End the thread that solves ahead."""
        self._bank.close()


__all__ = ["MAX_HASHES", "AioProver", "Prover", "UnsolvedError", "puzzle_of", "solve"]
