"""The client's side of a challenge: what is solved, what is left, and calls that need not know of it."""

import ast
import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2_grpc

from guard import proving
from guard.proving import ATTEMPTS, AioProver, Prover, UnsolvedError, puzzle_of, solve
from guard.puzzles import Issuer, read_proof
from tests.proxy.test_inspection import MEAN, model
from tests.proxy.world import CLEAN, INFER, request, world

pytestmark = pytest.mark.usefixtures("world_stages")
__all__ = ["model"]  # the fixture

ISSUER = Issuer(b"a secret of sixteen bytes")
ALL = {"policy": {"on_clear": "challenge"}, "challenge": {"hashes_per_row": 500}}
ASKED, OK = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OK


def issue(hashes: float = 100.0, nonce: int = 0, ttl_s: float = 60.0) -> str:
    return ISSUER.issue(
        "m", "c", rows=1, hashes=hashes, ttl_s=ttl_s, nonce=nonce.to_bytes(16, "big"), now=time.time()
    ).text  # fmt: skip


def is_good(proof: str) -> bool:
    read = read_proof(proof)
    return read is not None and read.good and ISSUER.knows(read.puzzle, "m", "c")


# --- solve


def test_a_solution_solves() -> None:
    for nonce in range(5):
        text = issue(3000.0, nonce)
        assert solve(text).startswith(text)
        assert is_good(solve(text))


def test_what_is_no_puzzle_is_not_worked_on() -> None:
    for text in ("", "1:2:3", "x" * 1000, issue().replace("1:1:", "2:1:")):
        with pytest.raises(UnsolvedError, match="no puzzle"):
            solve(text)


def test_a_puzzle_that_cannot_be_solved_is_no_puzzle() -> None:
    text = issue()
    with pytest.raises(UnsolvedError, match="no puzzle"):
        solve(text.replace(text.split(":")[4], "0" * 16))


def test_nobody_is_made_to_work_for_ever() -> None:
    started = time.monotonic()
    with pytest.raises(UnsolvedError, match="are the most"):
        solve(issue(1e15))
    with pytest.raises(UnsolvedError, match="are the most"):
        solve(issue(1000.0), max_hashes=999.0)
    assert time.monotonic() - started < 10.0
    with pytest.raises(UnsolvedError, match="in time"):
        solve(issue(1e15), max_hashes=1e16, timeout_s=0.2)
    assert time.monotonic() - started < 20.0


def test_it_needs_grpc_and_the_standard_library_alone() -> None:
    """A client need not have numpy, nor what Guard's server reads."""
    for file in ("proving.py", "puzzles.py"):
        tree = ast.parse((Path(proving.__file__).parent / file).read_text())
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert {name.partition(".")[0] for name in named} & {"numpy", "pydantic", "google", "yaml"} == set()
        assert {name for name in named if name.startswith("guard")} <= {"guard.puzzles"}


# --- with a server that is not there


class Details(NamedTuple):
    method: str = "/m"
    timeout: float | None = None
    metadata: Any = (("x-own", "1"),)
    credentials: Any = None
    wait_for_ready: bool | None = None
    compression: Any = None


class Ended(NamedTuple):
    status: grpc.StatusCode
    trailers: tuple[tuple[str, str], ...]

    def code(self) -> grpc.StatusCode:
        return self.status

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.trailers


@dataclass
class Server:
    """Asks for proof until it has had `wants` of them; `next` goes with an answer."""

    puzzle: str
    wants: int = 1
    next: str | None = None
    seen: list[Any] = field(default_factory=list)

    def __call__(self, details: Any, _: Any) -> Ended:
        self.seen.append(details)
        proofs = [one for one in self.seen if any(key == "guard-proof" for key, _ in one.metadata)]
        if len(proofs) < self.wants:
            return Ended(ASKED, (("guard-puzzle", self.puzzle),))
        return Ended(OK, () if self.next is None else (("guard-puzzle", self.next),))

    def proofs(self) -> list[str | None]:
        return [dict(details.metadata).get("guard-proof") for details in self.seen]


@pytest.fixture
def prover() -> Iterator[Prover]:
    made = Prover(max_hashes=1e5, timeout_s=2.0)
    yield made
    made.close()


def test_a_call_is_made_again_with_the_solution(prover: Prover) -> None:
    server = Server(issue())
    assert prover.intercept_unary_unary(server, Details(timeout=5.0), None).code() is OK
    first, second = server.proofs()
    assert first is None
    assert second is not None
    assert is_good(second)
    assert all(("x-own", "1") in details.metadata for details in server.seen)
    assert server.seen[1].timeout < server.seen[0].timeout <= 5.0


def test_a_call_is_not_made_again_for_ever(prover: Prover) -> None:
    server = Server(issue(), wants=99)
    assert prover.intercept_unary_unary(server, Details(), None).code() is ASKED
    assert len(server.seen) == ATTEMPTS
    assert [details.timeout for details in server.seen] == [None] * ATTEMPTS


def test_what_is_too_much_work_stays_refused(prover: Prover) -> None:
    server = Server(issue(1e6))
    call = prover.intercept_unary_unary(server, Details(), None)
    assert (call.code(), puzzle_of(call), len(server.seen)) == (ASKED, server.puzzle, 1)


def test_other_refusals_are_the_callers_own(prover: Prover) -> None:
    for ended in (Ended(ASKED, ()), Ended(grpc.StatusCode.PERMISSION_DENIED, ())):
        seen: list[Any] = []

        def server(*call: Any, ended: Ended = ended, seen: list[Any] = seen) -> Ended:
            seen.append(call)
            return ended

        assert prover.intercept_unary_unary(server, Details(), None) is ended
        assert len(seen) == 1


def test_the_next_call_has_its_proof_already(prover: Prover) -> None:
    server = Server(issue(), next=issue(nonce=1))
    for _ in range(3):
        assert prover.intercept_unary_unary(server, Details(), None).code() is OK
    proofs = server.proofs()
    assert len(proofs) == 4  # one round trip more, for the first
    assert all(proof is not None and proof.startswith(issue(nonce=1)[:20]) for proof in proofs[2:])


def test_a_puzzle_ahead_is_for_the_same_method_and_model(prover: Prover) -> None:
    server = Server(issue(), next=issue(nonce=1))
    prover.intercept_unary_unary(server, Details(), None)
    prover.intercept_unary_unary(server, Details(method="/other"), None)
    assert server.proofs()[2] is None


def test_a_puzzle_ahead_that_has_ended_is_left(prover: Prover, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(issue(), next=issue(nonce=1, ttl_s=10))
    prover.intercept_unary_unary(server, Details(), None)
    now = time.monotonic()
    monkeypatch.setattr(proving.time, "monotonic", lambda: now + 9.5)
    prover.intercept_unary_unary(server, Details(), None)
    assert server.proofs()[2] is None


def test_puzzles_ahead_are_bounded_and_those_too_dear_are_not_kept(prover: Prover) -> None:
    bank = prover._bank
    for text in (None, "nonsense", issue(1e9)):
        bank.put(("/m", ""), text)
    assert not bank._held
    for i in range(200):
        bank.put(("/m", ""), issue(nonce=i))
        bank.put((f"/m{i}", ""), issue(nonce=i))
    assert len(bank._held) == 64
    assert sum(map(len, bank._held.values())) <= 64 + 63


def test_a_call_waits_for_a_puzzle_that_is_being_solved_no_longer_than_it_may(prover: Prover) -> None:
    prover._bank.put(("/m", ""), issue())
    (held,) = prover._bank._held["/m", ""]
    with held.lock:
        started = time.monotonic()
        assert prover._bank.prepaid(("/m", ""), 0.1) is None
        assert time.monotonic() - started < 10.0


def test_the_thread_ends_with_its_prover() -> None:
    made = Prover()
    made._bank.put(("/m", ""), issue())
    thread = made._bank._thread
    assert isinstance(thread, threading.Thread)
    made.close()
    thread.join(5.0)
    assert not thread.is_alive()


# --- with Guard


async def test_an_asyncio_channel_need_not_know(model: Any) -> None:
    async with world(**model(MEAN, **ALL)) as (server, guarded):
        async with grpc.aio.insecure_channel(guarded.app.address) as plain:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await plain.unary_unary(INFER)(request(), timeout=10)
            assert error.value.code() is ASKED
            assert puzzle_of(error.value) is not None
        prover = AioProver()
        async with grpc.aio.insecure_channel(guarded.app.address, interceptors=[prover]) as channel:
            call = channel.unary_unary(INFER)
            bodies = [await call(request(), timeout=10) for _ in range(3)]
            bodies += await asyncio.gather(*[call(request(), timeout=10) for _ in range(5)])
            assert bodies == [await server.plain(request(), None)] * 8
        prover.close()


async def test_tritonclient_need_not_know(model: Any) -> None:
    def ask(address: str) -> list[np.ndarray]:
        client, prover = InferenceServerClient(address), Prover()
        channel = grpc.intercept_channel(client._channel, prover)
        client._client_stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        x = InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(CLEAN)
        found = [client.infer("m", [x], client_timeout=10).as_numpy("y") for _ in range(3)]
        prover.close()
        client.close()
        return found

    async with world(**model(MEAN, **ALL)) as (_, guarded):
        answers = await asyncio.to_thread(ask, guarded.app.address)
        assert [y.shape for y in answers] == [(1, 3)] * 3
        assert guarded.count("guard_challenges_total", model="m", outcome="none") == 1
        assert guarded.count("guard_challenges_total", model="m", outcome="solved") == 3
