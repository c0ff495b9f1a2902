"""Callers through real gRPC: honest ones who time each call, and a thief who counts what his process worked.

Honest callers use `guard.proving.Prover`, one call after the other; the first call of each is refused and made again.
Each asks a block of rows of a Guard that challenges everybody and a block of one that does not, one right after the
other, who is first changing each time; the pair's ratio is of the blocks' mean latencies.
The thief does all that a Python client can: batches, the puzzle of each answer for the next call, no other work.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from adversary.attack import Array
from guard import proving
from guard.proving import Prover
from guard.puzzles import read_puzzle
from guard.wire import messages

INFER = "/inference.GRPCInferenceService/ModelInfer"
_CALL_S = 60.0
_REST_S = 0.05  # until a puzzle that nobody will need is solved


@dataclass(frozen=True, slots=True)
class Honest:
    """How honest callers ask.

    think_s: between an answer and the next call. control: neither side is challenged, so that the ratio should be 1.
    """

    callers: int
    rows: int
    think_s: float
    control: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """(callers, rows) seconds each: plain, of the Guard without challenges; asked, of the other."""

    plain: Array
    asked: Array

    @property
    def ratios(self) -> Array:
        """(callers,) of the mean latencies."""
        return np.asarray(self.asked.mean(axis=1) / self.plain.mean(axis=1))


@dataclass(frozen=True, slots=True)
class Step:
    """What a thief has so far.

    rows: answered. cpu_s: worked in all; solving_s: of that on puzzles. hashes: asked of him.
    """

    rows: int
    cpu_s: float
    solving_s: float
    hashes: float


@dataclass(slots=True)
class Theft:
    """A thief's steps. calls: answered; asked: refused with a puzzle."""

    steps: list[Step] = field(default_factory=list)
    calls: int = 0
    asked: int = 0


@contextmanager
def _channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(_CALL_S)
        yield channel


def body(model: str, name: str, x: Array) -> bytes:
    """A request with these rows."""
    return messages.build_request(model, {name: np.ascontiguousarray(x, np.float32)})


def honest(plain: str, asked: str, bodies: Sequence[bytes], how: Honest) -> Latency:
    """bodies: one row each, at least callers * rows."""
    found = {"plain": np.zeros((how.callers, how.rows)), "asked": np.zeros((how.callers, how.rows))}
    with _channel(plain) as without, _channel(asked) as with_it:
        for i in range(how.callers):
            own, key = bodies[i * how.rows : (i + 1) * how.rows], f"honest-{how.think_s}-{how.control}-{i}"
            metadata = (("x-api-key", key),)
            for name in ("plain", "asked") if i % 2 else ("asked", "plain"):
                if name == "plain":
                    found[name][i] = _timed(without, own, metadata, how.think_s)
                else:
                    prover = Prover()
                    found[name][i] = _timed(grpc.intercept_channel(with_it, prover), own, metadata, how.think_s)
                    prover.close()
                time.sleep(_REST_S)
    return Latency(found["plain"], found["asked"])


def _timed(channel: Any, bodies: Sequence[bytes], metadata: Any, think_s: float) -> list[float]:
    call, taken = channel.unary_unary(INFER), []
    for one in bodies:
        time.sleep(think_s)
        started = time.perf_counter()
        call(one, metadata=metadata, timeout=_CALL_S)
        taken.append(time.perf_counter() - started)
    return taken


def steal(address: str, bodies: Sequence[bytes], batch: int, most_cpu_s: float) -> Theft:
    """bodies: batches, asked for one after the other, until he has all or has worked for so long; one in any case."""
    theft, begun = Theft(), time.process_time()
    rows, solving_s, hashes, proof, at = 0, 0.0, 0.0, None, 0
    with _channel(address) as channel:
        call: Any = channel.unary_unary(INFER)
        while at < len(bodies) and (not theft.steps or time.process_time() - begun < most_cpu_s):
            own = (("x-api-key", "thief"), *(() if proof is None else (("guard-proof", proof),)))
            try:
                _, ended = call.with_call(bodies[at], metadata=own, timeout=_CALL_S)
            except grpc.RpcError as error:
                puzzle = proving.puzzle_of(error)
                if puzzle is None:
                    raise
                theft.asked += 1
            else:
                puzzle, at, rows = proving.puzzle_of(ended), at + 1, rows + batch
                theft.calls += 1
                theft.steps.append(Step(rows, time.process_time() - begun, solving_s, hashes))
            if puzzle is None:
                continue
            before, read = time.process_time(), read_puzzle(puzzle)
            proof = proving.solve(puzzle, max_hashes=1e15)
            solving_s += time.process_time() - before
            hashes += 0.0 if read is None else read.hashes
    return theft
