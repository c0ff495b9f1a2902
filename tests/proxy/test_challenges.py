"""`challenge` through real gRPC: who is asked for proof of work, what is taken for it, and how often."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from guard import client, proving
from guard.metrics import Metrics
from guard.proxy import admin_messages, challenges
from guard.proxy.challenges import Challenges, Purse, purse_of
from guard.puzzles import Proof, read_puzzle
from guard.settings import Challenge
from guard.stores.memory import MemoryStore
from guard.types import Action
from tests.proxy.test_inspection import MEAN, UNIFORM, VIEWS, events, model
from tests.proxy.world import (
    FLAGGED,
    SQUEEZED,
    Ended,
    Guarded,
    guarding,
    read,
    request,
    serving,
    settings,
    world,
)
from tests.servers import valkey

pytestmark = pytest.mark.usefixtures("world_stages")
__all__ = ["model"]  # the fixture

ALL = {"on_clear": "challenge"}
CHEAP = {"hashes_per_row": 64, "growth": 100, "grows_from": 0}
AGREEMENT = {"monitors": [{"stage": "test_agreement"}]}
KEYS = {"identity": {"chain": [{"kind": "api_key"}, {"kind": "peer"}]}}
ASKED, OK = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OK


def row(i: int, n: int = 1) -> np.ndarray:
    """Clean rows, each different."""
    return np.random.default_rng(i).uniform(0.1, 0.4, (n, 4)).astype(np.float32)


def puzzle_in(reply: Ended) -> str:
    """The puzzle of a refusal, in its details and in its trailer."""
    assert (reply.code, reply.details) == (ASKED, "the call needs proof of work")
    packed = status_pb2.Status.FromString(reply.trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert (len(packed.details), packed.code) == (1, 9)
    assert packed.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("PROOF_OF_WORK_REQUIRED", "guard")
    assert set(info.metadata) == {"puzzle", "algorithm", "parts", "rows", "target", "hashes", "ttl_s"}
    assert info.metadata["puzzle"] == reply.trailing["guard-puzzle"]
    return str(info.metadata["puzzle"])


def proof(text: str) -> tuple[tuple[str, str], ...]:
    return (("guard-proof", proving.solve(text)),)


async def asked(guarded: Guarded, body: bytes, **options: Any) -> str:
    return puzzle_in(await guarded.unary(body, **options))


async def paid(guarded: Guarded, body: bytes, *more: tuple[str, str]) -> Ended:
    """Asked, solved, asked again."""
    return await guarded.unary(body, metadata=(*proof(await asked(guarded, body, metadata=more)), *more))


def hashes(text: str) -> float:
    found = read_puzzle(text)
    assert found is not None
    return found.hashes


# --- who is asked


async def test_everybody_is_asked_and_answered_once_the_puzzle_is_solved(model: Any, tmp_path: Path) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP)) as (server, guarded):
        text = await asked(guarded, request())
        assert (hashes(text), server.calls()) == (pytest.approx(64.0), [])  # nothing was forwarded
        reply = await guarded.unary(request(), metadata=(*proof(text), ("x-own", "travels")))
        assert reply.body == await server.plain(request(), None)
        ((call,), keys) = server.calls(), {key for key, _ in server.calls()[0].metadata}
        assert (len(call.bodies), "x-own" in keys, "guard-proof" in keys) == (1, True, False)
        for outcome in ("none", "solved"):
            assert guarded.count("guard_challenges_total", model="m", outcome=outcome) == 1
    (told,) = events(tmp_path)  # what is asked of everybody and was paid is nothing to tell of
    assert (told["action"], told["would_be"], told["reason"]) == ("challenge", "challenge", None)
    assert len(told["payload_sha256"]) == 64
    async with world(**model(MEAN)) as (_, guarded):
        reply = await guarded.unary(request())
        assert (reply.code, "guard-puzzle" in reply.trailing) == (OK, False)


@pytest.mark.parametrize("how", ["shadow", "exempt"])
async def test_in_shadow_and_for_the_exempt_it_is_counted_only(model: Any, tmp_path: Path, how: str) -> None:
    exempt = {"caller": "peer:127.0.0.1", "until": "2999-01-01T00:00:00Z", "reason": "r", "approved_by": ["a"]}
    values = {"policy": ALL, "mode": "shadow"} if how == "shadow" else {"policy": ALL | {"exempt": [exempt]}}
    async with world(**model(MEAN, **values)) as (server, guarded):
        reply = await guarded.unary(request(), metadata=(("guard-proof", "nonsense"),))
        assert (reply.code, "guard-puzzle" in reply.trailing) == (OK, False)
        assert "guard-proof" not in {key for key, _ in server.calls()[0].metadata}
        assert guarded.count("guard_decisions_total", model="m", action="allow", would_be="challenge") == 1
    assert [event for event in events(tmp_path) if event["event"] == "guard.decision"] == []


async def test_flagged_inputs_alone_are_asked_for_where_the_policy_says_so(model: Any, tmp_path: Path) -> None:
    async with world(**model(MEAN, UNIFORM, policy={"on_input": ["challenge", "degrade"]})) as (_, guarded):
        assert (await guarded.unary(request())).code is OK
        reply = await paid(guarded, request(FLAGGED))
        np.testing.assert_allclose(read(reply.body), [[1 / 3] * 3], rtol=1e-6)
    assert [(e["action"], e["would_be"], e["reason"]) for e in events(tmp_path)] == [
        ("challenge", "challenge", "input"),
        ("degrade", "challenge", "input"),
    ]


async def test_what_only_the_answer_shows_is_asked_for_too(model: Any) -> None:
    async with world(**model(VIEWS, policy={"on_input": "challenge"})) as (_, guarded):
        assert (await guarded.unary(request())).code is OK
        reply = await paid(guarded, request(SQUEEZED))
        assert (reply.code, "guard-puzzle" in reply.trailing) == (OK, True)


async def test_a_call_pays_once_whatever_its_answer_shows(model: Any) -> None:
    both = np.array([[1.0, 1.0, 0.9, 0.9]], np.float32)
    async with world(**model(MEAN, VIEWS, policy={"on_input": "challenge"}, challenge=CHEAP)) as (_, guarded):
        assert (await paid(guarded, request(both))).code is OK
        assert guarded.count("guard_challenges_total", model="m", outcome="solved") == 1


async def test_who_comes_to_a_level_is_asked_from_then_on(model: Any) -> None:
    async with world(**model(AGREEMENT, policy={"on_watch": "challenge"}, challenge=CHEAP)) as (_, guarded):
        codes = []
        for i in range(5):
            codes.append((await guarded.unary(request(row(i)))).code)
            await asyncio.sleep(0.05)  # what need not be held is concluded after it was answered
        assert codes == [OK, OK, OK, ASKED, ASKED]
        assert (await paid(guarded, request(row(9)))).code is OK


async def test_without_proof_nothing_is_taken_of_a_throttle(model: Any) -> None:
    throttle = {"throttle_rows_per_s": 0.001, "throttle_burst_rows": 1}
    policy = {"on_input": ["challenge", "throttle"], **throttle}
    async with world(**model(MEAN, policy=policy)) as (_, guarded):
        for _ in range(3):
            await asked(guarded, request(FLAGGED))
        assert (await paid(guarded, request(FLAGGED))).code is OK
        assert (await paid(guarded, request(FLAGGED))).code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_is_not_inspected_costs_the_most(model: Any) -> None:
    """Nobody can say whose progress it is; and another version is no way around."""
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP)) as (_, guarded):
        body = request(version="77")
        assert hashes(await asked(guarded, body)) == pytest.approx(6400.0)
        assert (await paid(guarded, body)).code is OK
    async with world(**model(MEAN, policy={"on_input": "challenge"})) as (_, guarded):
        assert (await guarded.unary(request(version="77"))).code is OK


async def test_an_inspection_that_fails_asks_for_the_least(model: Any) -> None:
    late = {"detectors": [{"stage": "test_mean", "options": {"slow_s": 1.0}}]}
    made = model(late, mean={"slow_s": 1.0}, policy=ALL, challenge=CHEAP)
    async with world(**made, limits={"inspection_timeout_s": 0.2}) as (_, guarded):
        assert (await paid(guarded, request())).code is OK
        assert guarded.count("guard_uninspected_total", model="m", reason="inspection_timeout") == 1


# --- what is taken


async def test_a_solution_is_good_once(model: Any) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP)) as (server, guarded):
        solved = proof(await asked(guarded, request()))
        replies = await asyncio.gather(*[guarded.unary(request(row(i)), metadata=solved) for i in range(5)])
        assert sorted(reply.code.name for reply in replies) == ["FAILED_PRECONDITION"] * 4 + ["OK"]
        assert len(server.calls()) == 1
        assert guarded.count("guard_challenges_total", model="m", outcome="spent") == 4
        again = next(reply for reply in replies if reply.code is ASKED)
        assert (await guarded.unary(request(), metadata=proof(puzzle_in(again)))).code is OK


def spoil(text: str, how: str) -> tuple[tuple[str, str | bytes], ...]:
    puzzle = read_puzzle(text)
    assert puzzle is not None
    good = proving.solve(text)
    cheaper = text.replace(f"{puzzle.target:016x}", "f" * 16)
    spoilt: dict[str, Any] = {
        "unsolved": (Proof(puzzle, (1,) * 16).text,),
        "forged": (proving.solve(cheaper),),
        "cut": (good[:-40],),
        "long": (good + "0" * 9000,),
        "many": (good, good),
        "nonsense": ("0:" * 200,),
        "empty": ("",),
    }
    return tuple(("guard-proof", value) for value in spoilt[how])


@pytest.mark.parametrize("how", ["unsolved", "forged", "cut", "long", "many", "nonsense", "empty"])
async def test_what_is_wrong_gets_a_fresh_puzzle(model: Any, how: str, caplog: pytest.LogCaptureFixture) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP)) as (server, guarded):
        text = await asked(guarded, request())
        reply = await guarded.unary(request(), metadata=spoil(text, how))
        fresh = puzzle_in(reply)
        assert fresh != text
        assert guarded.count("guard_challenges_total", model="m", outcome="wrong") == (how != "empty")
        assert (await guarded.unary(request(), metadata=proof(fresh))).code is OK
        assert len(server.calls()) == 1
    assert "Traceback" not in caplog.text


async def test_a_solution_is_its_callers_and_its_models_own(model: Any) -> None:
    made = model(MEAN, policy=ALL, challenge=CHEAP)
    other = made["models"][0] | {"name": "n"}
    made["models"].append(other)
    async with world(**made, **KEYS) as (_, guarded):
        alice, bob = ("x-api-key", "alice"), ("x-api-key", "bob")
        solved = proof(await asked(guarded, request(), metadata=[alice]))
        assert (await guarded.unary(request(), metadata=(*solved, bob))).code is ASKED
        assert (await guarded.unary(request(model="n"), metadata=(*solved, alice))).code is not OK
        assert (await guarded.unary(request(), metadata=(*solved, alice))).code is OK  # it was not spent by that


async def test_it_ends_with_its_time(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP | {"ttl_s": 60})) as (_, guarded):
        early, late = [proof(await asked(guarded, request())) for _ in range(2)]
        ahead = [0.0]
        monkeypatch.setattr(challenges, "time", SimpleNamespace(time=lambda: time.time() + ahead[0]))
        ahead[0] = 55.0
        assert (await guarded.unary(request(), metadata=early)).code is OK
        ahead[0] = 62.0
        assert (await guarded.unary(request(), metadata=late)).code is ASKED
        assert guarded.count("guard_challenges_total", model="m", outcome="expired") == 1


async def test_it_pays_for_so_many_rows(model: Any) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP)) as (_, guarded):
        three = await asked(guarded, request(row(1, 3)))
        assert hashes(three) == pytest.approx(3 * 64.0)
        assert (await guarded.unary(request(row(2, 4)), metadata=proof(three))).code is ASKED
        assert guarded.count("guard_challenges_total", model="m", outcome="short") == 1
        again = await asked(guarded, request(row(1, 3)))
        assert (await guarded.unary(request(row(3, 2)), metadata=proof(again))).code is OK


async def test_an_answer_brings_the_next_puzzle(model: Any) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP)) as (_, guarded):
        reply = await paid(guarded, request(row(1, 2)))
        for i in range(3):
            reply = await guarded.unary(request(row(i, 2)), metadata=proof(reply.trailing["guard-puzzle"]))
            assert reply.code is OK
        assert guarded.count("guard_challenges_total", model="m", outcome="none") == 1


async def test_an_upstreams_own_puzzle_does_not_travel(model: Any) -> None:
    async def infer(body: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("guard-puzzle", "false"), ("x-own", "travels")))
        return await server.plain(body, context)

    async with world(**model(MEAN)) as (server, guarded):
        server.infer = infer
        reply = await guarded.unary(request())
        assert (reply.trailing["x-own"], "guard-puzzle" in reply.trailing) == ("travels", False)


# --- what it costs


async def test_the_price_grows_with_what_was_answered(model: Any) -> None:
    async with world(**model(AGREEMENT, policy=ALL, challenge=CHEAP)) as (_, guarded):
        prices = []
        for i in range(4):
            text = await asked(guarded, request(row(i)))
            prices.append(hashes(text))
            assert (await guarded.unary(request(row(i)), metadata=proof(text))).code is OK
            await asyncio.sleep(0.05)
        assert prices == pytest.approx([64 * 100 ** (n / 10) for n in (1, 2, 3, 4)])


async def test_puzzles_that_were_collected_while_they_were_cheap_are_not_taken_later(model: Any) -> None:
    async with world(**model(AGREEMENT, policy=ALL, challenge=CHEAP)) as (_, guarded):
        collected = [proof(await asked(guarded, request(row(0)))) for _ in range(8)]
        codes = []
        for i, solved in enumerate(collected):
            codes.append((await guarded.unary(request(row(i)), metadata=solved)).code)
            await asyncio.sleep(0.05)
        assert codes == [OK] * 2 + [ASKED] * 6  # at the third row the price is 2.5 times that of the first
        assert guarded.count("guard_challenges_total", model="m", outcome="short") == 6
        past = await guarded.app.runtime.store.past("m", "peer:127.0.0.1")
        assert past is not None
        # the first that fell short counts as answered; the others are foreseen, or each would make an input free
        assert (past.rows, guarded.app.runtime.shared.store.entries) == (3, 3)
        again = await paid(guarded, request(row(9)))
        assert (again.code, guarded.app.runtime.challenges.doubted) == (OK, {})


async def test_many_cheap_proofs_at_once_make_no_more_inputs_free_than_one(model: Any) -> None:
    async with world(**model(AGREEMENT, policy=ALL, challenge=CHEAP)) as (_, guarded):
        collected = [proof(await asked(guarded, request(row(0)))) for _ in range(12)]
        for i in range(4):
            assert (await paid(guarded, request(row(i)))).code is OK
            await asyncio.sleep(0.05)
        replies = await asyncio.gather(
            *[guarded.unary(request(row(10 + i)), metadata=solved) for i, solved in enumerate(collected)]
        )
        assert {reply.code for reply in replies} == {ASKED}
        assert guarded.app.runtime.shared.store.entries == 5


async def test_a_query_that_is_turned_away_is_not_remembered(model: Any) -> None:
    """Else another account could ask first, without proof, for what then costs its owner nothing: repeats are free."""
    alice, bob = ("x-api-key", "alice"), ("x-api-key", "bob")
    async with world(**model(AGREEMENT, policy=ALL, challenge=CHEAP), **KEYS) as (_, guarded):
        store = guarded.app.runtime.shared.store
        for i in range(4):
            await asked(guarded, request(row(i)), metadata=[bob])
        assert store.entries == 0
        for i in range(4):
            assert (await paid(guarded, request(row(i)), alice)).code is OK
            await asyncio.sleep(0.05)
        assert store.entries == 4
        known = sorted(past.rows for _, past in await store.callers("m"))
        assert known[-1] == 4
        assert sum(known) == 4


# --- streams


async def test_a_streams_proof_pays_for_its_first_rows(model: Any) -> None:
    bodies = [request(row(i), request_id=str(i)) for i in range(6)]
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP | {"stream_rows": 4})) as (server, guarded):
        reply = await guarded.stream(*bodies)
        assert reply.bodies == []
        text = puzzle_in(reply)
        assert hashes(text) == pytest.approx(4 * 64.0)
        reply = await guarded.stream(*bodies, metadata=proof(text))
        assert len(reply.bodies) == 4  # what was paid for is answered
        reply = await guarded.stream(*bodies[4:], metadata=proof(puzzle_in(reply)))
        assert (reply.code, len(reply.bodies)) == (OK, 2)
        assert all("guard-proof" not in dict(call.metadata) for call in server.seen)
    async with world(**model(MEAN)) as (_, guarded):
        assert len((await guarded.stream(*bodies)).bodies) == 6


async def test_a_streams_message_with_more_rows_than_that_gets_a_puzzle_for_them(model: Any) -> None:
    async with world(**model(MEAN, policy=ALL, challenge=CHEAP | {"stream_rows": 2})) as (_, guarded):
        text = puzzle_in(await guarded.stream(request(row(0, 5))))
        assert hashes(text) == pytest.approx(5 * 64.0)
        assert len((await guarded.stream(request(row(0, 5)), metadata=proof(text))).bodies) == 1


async def test_on_a_stream_what_only_the_answers_show_is_asked_for_too(model: Any) -> None:
    async with world(**model(VIEWS, policy={"on_input": "challenge"}, challenge=CHEAP)) as (_, guarded):
        reply = await guarded.stream(request(), request(SQUEEZED))
        assert len(reply.bodies) == 1
        reply = await guarded.stream(request(SQUEEZED), metadata=proof(puzzle_in(reply)))
        assert (reply.code, len(reply.bodies)) == (OK, 1)


# --- stores


async def test_replicas_take_each_others_puzzles_and_each_solution_once(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_SECRET", "a secret of sixteen bytes")
    made = model(MEAN, policy=ALL, challenge=CHEAP)
    async with AsyncExitStack() as stack:
        port = stack.enter_context(valkey.start(tmp_path))
        server = await stack.enter_async_context(serving())
        history = {"store": "valkey", "valkey": {"addresses": [f"127.0.0.1:{port}"], "timeout_s": 0.9}}
        one, two = [
            await stack.enter_async_context(guarding(settings(server.address, history=history, **made)))
            for _ in range(2)
        ]
        solved = proof(await asked(one, request()))
        assert (await two.unary(request(), metadata=solved)).code is OK
        assert [(await guarded.unary(request(), metadata=solved)).code for guarded in (one, two)] == [ASKED] * 2


class Away(MemoryStore):
    async def once(self, *_: Any, **__: Any) -> bool:
        raise ConnectionError


async def test_a_store_that_is_away_locks_nobody_out() -> None:
    metrics = Metrics()
    guarded: Any = SimpleNamespace(name="m", settings=SimpleNamespace(challenge=Challenge(hashes_per_row=64)))
    for store, second in ((Away(), True), (MemoryStore(), False)):
        made = Challenges(store, metrics, b"secret")
        refusal = made.demand(guarded, "c", Purse(), 1, 0.0, 0.0)
        assert refusal is not None
        solved = proof(dict(refusal.trailing)["guard-puzzle"])
        worth = [await made.pay(guarded, "c", purse_of(solved, streams=False), 1) for _ in range(2)]
        assert worth == pytest.approx([64.0, 64.0 * second])
    assert metrics._registry.get_sample_value("guard_unrationed_calls_total", {"model": "m"}) == 2


# --- alone


@pytest.mark.parametrize(
    ("values", "text", "outcome"),
    [
        ((), "", "none"),
        (("x",), "x", "none"),
        ((b"x",), "", "wrong"),
        (("x", "x"), "", "wrong"),
        (("x" * 513,), "", "wrong"),
    ],
)
def test_one_short_text_is_looked_at(values: tuple[str | bytes, ...], text: str, outcome: str) -> None:
    purse = purse_of(tuple(("guard-proof", value) for value in values), streams=False)
    assert (purse.text, purse.outcome) == (text, outcome)


def test_challenge_stands_between_throttle_and_deny() -> None:
    assert Action.THROTTLE.severity < Action.CHALLENGE.severity < Action.DENY.severity
    assert set(admin_messages.ACTIONS) == set(Action)  # it has a name on Guard's own API, as all have
    assert set(client._ACTIONS.values()) == set(Action)
