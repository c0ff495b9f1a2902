"""What callers may have, and how fast, through real gRPC: budgets, throttles, delays, exemptions."""

import asyncio
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from guard.metrics import Metrics
from guard.proxy.rations import Rations
from guard.settings import Policy
from guard.stores.memory import MemoryStore
from guard.types import Action, Batching, Bucket, Decision, Query
from tests.proxy.test_inspection import MEAN, UNIFORM, VIEWS, events, model
from tests.proxy.world import CLEAN, FLAGGED, SQUEEZED, Ended, eventually, request, world

pytestmark = pytest.mark.usefixtures("world_stages")
__all__ = ["model"]  # the fixture

SPENT = "the caller's budget is spent"
SLOW = {"rows_per_s": 0.001, "burst_rows": 3}


def retry_s(reply: Ended) -> int | None:
    """What the refusal says of when to come back."""
    packed = status_pb2.Status.FromString(reply.trailing["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert packed.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("BUDGET", "guard")
    return int(retry.retry_delay.seconds) if len(packed.details) > 1 and packed.details[1].Unpack(retry) else None


def rows(n: int) -> np.ndarray:
    return np.repeat(CLEAN, n, axis=0)


async def test_a_budget_of_rows_ends_with_the_time_to_come_back(model: Any) -> None:
    async with world(**model(MEAN, budget=SLOW)) as (server, guarded):
        codes = [(await guarded.unary(request(rows(n)))).code.name for n in (1, 2)]
        reply = await guarded.unary(request())
        assert codes == ["OK", "OK"]
        assert (reply.code, reply.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, SPENT)
        assert retry_s(reply) == 1000  # a row a 1,000 s, in whole steps of 5
        assert len(server.calls()) == 2  # the refused one was not forwarded
        counted = {"model": "m", "what": "budget", "outcome": "refused"}
        assert guarded.count("guard_rationed_calls_total", **counted) == 1


async def test_a_query_with_more_than_the_burst_is_never_answered(model: Any) -> None:
    async with world(**model(MEAN, budget=SLOW)) as (_, guarded):
        reply = await guarded.unary(request(rows(4)))
        assert reply.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_s(reply) is None
        assert (await guarded.unary(request(rows(3)))).code is grpc.StatusCode.OK  # nothing was taken


@pytest.mark.parametrize("budget", [{}, {**SLOW, "mode": "off"}, {"rows_per_day": 100}, {"rows_per_s": 1000}])
async def test_who_has_enough_or_no_limit_is_answered(model: Any, budget: dict[str, Any]) -> None:
    async with world(**model(MEAN, budget=budget)) as (_, guarded):
        assert {(await guarded.unary(request())).code for _ in range(10)} == {grpc.StatusCode.OK}
        assert guarded.count("guard_rationed_calls_total", model="m", what="budget", outcome="refused") == 0


async def test_in_shadow_what_would_be_refused_is_counted(model: Any) -> None:
    async with world(**model(MEAN, budget={**SLOW, "mode": "shadow"})) as (_, guarded):
        assert {(await guarded.unary(request())).code for _ in range(5)} == {grpc.StatusCode.OK}
        assert guarded.count("guard_rationed_calls_total", model="m", what="budget", outcome="let through") == 2


async def test_a_budget_needs_no_profile() -> None:
    models = [{"name": "m", "mode": "enforce", "budget": SLOW}]
    async with world(models=models) as (_, guarded):
        codes = [(await guarded.unary(request())).code.name for _ in range(4)]
        assert codes == ["OK", "OK", "OK", "RESOURCE_EXHAUSTED"]


async def test_information_runs_out_by_what_was_answered(model: Any) -> None:
    """A sure answer tells less than an unsure one: log2(3) and its entropy."""
    sure = np.array([[1.0, 0.0, 0.0, 0.0]], np.float32)
    budget = {"bits_per_day": 6.0}
    answered = []
    for x in (sure, CLEAN):
        async with world(**model(MEAN, budget=budget)) as (_, guarded):
            n = 0
            while (await guarded.unary(request(x))).code is grpc.StatusCode.OK:
                n += 1
                await asyncio.sleep(0.3)  # what need not be held is concluded after it was answered
            answered.append(n)
    assert answered == [3, 2]  # 1.585 bits each, and 3.005


async def test_on_a_stream_answers_count_as_telling_the_most(model: Any) -> None:
    async with world(**model(MEAN, budget={"bits_per_day": 6.0})) as (_, guarded):
        reply = await guarded.stream(*[request(request_id=str(i)) for i in range(5)])
        good = [body for body in reply.bodies if b"budget" not in body]
        assert len(good) == 2


# --- throttle


THROTTLE = {"on_input": "throttle", "throttle_rows_per_s": 0.001, "throttle_burst_rows": 2}


async def test_a_throttled_caller_gets_his_part_and_then_waits(model: Any, tmp_path: Path) -> None:
    async with world(**model(MEAN, policy=THROTTLE)) as (server, guarded):
        replies = [await guarded.unary(request(FLAGGED)) for _ in range(3)]
        assert [reply.code.name for reply in replies] == ["OK", "OK", "RESOURCE_EXHAUSTED"]
        assert replies[2].details == SPENT
        assert retry_s(replies[2]) == 1000
        assert len(server.calls()) == 2
        assert (await guarded.unary(request())).code is grpc.StatusCode.OK  # what was not flagged is not throttled
    told = events(tmp_path)
    assert [event["action"] for event in told] == ["allow", "allow", "throttle"]
    assert {event["would_be"] for event in told} == {"throttle"}


async def test_what_only_the_answer_shows_is_throttled_too(model: Any) -> None:
    async with world(**model(VIEWS, policy=THROTTLE)) as (_, guarded):
        codes = [(await guarded.unary(request(SQUEEZED))).code.name for _ in range(3)]
        assert codes == ["OK", "OK", "RESOURCE_EXHAUSTED"]


async def test_a_call_is_taken_off_once_whatever_its_answer_shows(model: Any, tmp_path: Path) -> None:
    """Both detectors speak, one before the answer and one after it."""
    both = np.array([[1.0, 1.0, 0.9, 0.9]], np.float32)
    async with world(**model(MEAN, VIEWS, policy={**THROTTLE, "throttle_burst_rows": 3})) as (_, guarded):
        codes = [(await guarded.unary(request(both))).code.name for _ in range(4)]
        assert codes == ["OK", "OK", "OK", "RESOURCE_EXHAUSTED"]
    assert [event["action"] for event in events(tmp_path)] == ["allow", "allow", "allow", "throttle"]


async def test_messages_of_a_stream_are_throttled_before_and_after_views(model: Any) -> None:
    for stage, x in ((MEAN, FLAGGED), (VIEWS, SQUEEZED)):
        async with world(**model(stage, policy=THROTTLE)) as (_, guarded):
            reply = await guarded.stream(*[request(x, request_id=str(i)) for i in range(3)])
            # one of them, and not always the last: a stream's messages are judged side by side
            assert sorted(b"budget is spent" in body for body in reply.bodies) == [False, False, True]


async def test_in_shadow_nobody_is_throttled(model: Any) -> None:
    async with world(**model(MEAN, policy=THROTTLE, mode="shadow")) as (_, guarded):
        assert {(await guarded.unary(request(FLAGGED))).code for _ in range(4)} == {grpc.StatusCode.OK}


# --- delay


def delaying(delay_s: float) -> dict[str, Any]:
    return {"policy": {"on_input": ["degrade", "delay"], "delay_s": delay_s}}


async def test_a_flagged_input_is_answered_late_and_degraded(model: Any) -> None:
    async with world(**model(MEAN, UNIFORM, **delaying(3.0))) as (_, guarded):
        started = time.monotonic()
        assert (await guarded.unary(request())).code is grpc.StatusCode.OK
        quick, started = time.monotonic() - started, time.monotonic()
        late = await guarded.unary(request(FLAGGED))
        assert late.code is grpc.StatusCode.OK
        assert time.monotonic() - started >= 1.5 > quick


async def test_what_is_held_back_is_not_what_guard_adds(model: Any) -> None:
    async with world(**model(MEAN, UNIFORM, **delaying(0.6))) as (_, guarded):
        assert (await guarded.unary(request(FLAGGED))).code is grpc.StatusCode.OK
        way = {"grpc_type": "unary", "grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
        await eventually(lambda: guarded.count("grpc_server_handling_seconds_count", **way))
        took = guarded.count("grpc_server_handling_seconds_sum", **way)
        assert guarded.count("guard_added_seconds_count", model="m") == 1
        assert guarded.count("guard_added_seconds_sum", model="m") <= took - 0.3  # half of the delay at least
        for phase in ("decide", "conclude"):
            assert guarded.count("guard_phase_seconds_count", model="m", phase=phase) == 1


async def test_a_delay_leaves_half_of_the_time_that_is_left(model: Any) -> None:
    async with world(**model(MEAN, UNIFORM, **delaying(60))) as (_, guarded):
        started = time.monotonic()
        assert (await guarded.unary(request(FLAGGED), timeout=4)).code is grpc.StatusCode.OK
        assert time.monotonic() - started > 1.0


async def test_only_so_many_answers_are_held_back_at_once(model: Any) -> None:
    limits = {"limits": {"drain_s": 0.0, "max_delayed_calls": 1}}
    async with world(**model(MEAN, UNIFORM, **delaying(4)), **limits) as (_, guarded):
        started = time.monotonic()
        calls = [asyncio.create_task(guarded.unary(request(FLAGGED))) for _ in range(4)]
        done, waiting = await asyncio.wait(calls, timeout=1.5)
        assert (len(done), len(waiting)) == (3, 1)
        assert {call.result().code for call in done} == {grpc.StatusCode.OK}
        assert guarded.count("guard_rationed_calls_total", model="m", what="delay", outcome="let through") == 3
        assert (await waiting.pop()).code is grpc.StatusCode.OK
        assert time.monotonic() - started >= 2.0


async def test_messages_of_a_stream_are_held_back_too(model: Any) -> None:
    async with world(**model(MEAN, UNIFORM, **delaying(0.6))) as (_, guarded):
        started = time.monotonic()
        reply = await guarded.stream(request(FLAGGED))
        assert (reply.code, len(reply.bodies)) == (grpc.StatusCode.OK, 1)
        assert time.monotonic() - started >= 0.3


# --- refusals take as long as answers


def decision_of(name: str, *responses: Action) -> Decision:
    query = Query(np.zeros(1), "c", "m", name)
    return Decision(query, Action.ALLOW, Action.ALLOW, enforced=True, responses=frozenset(responses))


async def refused_s(guarded: Any, body: bytes) -> float:
    started = time.monotonic()
    assert (await guarded.unary(body)).code is grpc.StatusCode.PERMISSION_DENIED
    return time.monotonic() - started


async def test_a_refusal_before_the_model_was_asked_takes_as_long_as_answers_do(model: Any) -> None:
    async with world(**model(MEAN)) as (server, guarded):
        assert await refused_s(guarded, request(FLAGGED)) < 1.5  # nothing is known yet: the control

        async def slow(body: bytes, context: Any) -> bytes:
            await asyncio.sleep(2.0)
            return bytes(await server.plain(body, context))

        server.infer = slow
        assert (await guarded.unary(request())).code is grpc.StatusCode.OK
        assert await refused_s(guarded, request(FLAGGED)) >= 1.9
        assert len(server.calls()) == 1  # the model was not asked for it


async def test_it_keeps_to_half_of_the_time_that_is_left(model: Any) -> None:
    async with world(**model(MEAN)) as (_, guarded):
        guarded.app.runtime.rations.paces["m", 0] = deque([30.0])
        started = time.monotonic()
        assert (await guarded.unary(request(FLAGGED), timeout=4)).code is grpc.StatusCode.PERMISSION_DENIED
        assert time.monotonic() - started > 1.2


def test_how_long_is_drawn_from_the_latest_answers_of_the_same_size() -> None:
    rations, guarded = Rations(MemoryStore(), Metrics(), b"k" * 32, 8), SimpleNamespace(name="m")
    quick, late = decision_of("a"), decision_of("b", Action.DELAY)
    assert rations.pace_s("m", quick, 1) == 0.0
    for taken_s in range(200):
        rations.answered(guarded, quick, 1, float(taken_s))  # type: ignore[arg-type]
        rations.answered(guarded, quick, 1000, 1e6)  # type: ignore[arg-type]
        rations.answered(guarded, late, 1, 1e9)  # type: ignore[arg-type]
    drawn = {rations.pace_s("m", decision_of(f"d{i}"), 1) for i in range(300)}
    assert min(drawn) >= 200 - 128
    assert len(drawn) > 60
    assert max(drawn) < 200  # an answer that was held back, or was of many rows, says nothing of how long they take
    assert rations.pace_s("m", quick, 600) == 1e6


# --- exemptions


async def test_an_exempt_caller_is_told_of_and_let_through(model: Any, tmp_path: Path) -> None:
    exempt = {"caller": "peer:127.0.0.1", "until": "2999-01-01T00:00:00Z", "reason": "load test", "approved_by": ["a"]}
    async with world(**model(MEAN, budget=SLOW, policy={"exempt": [exempt]})) as (_, guarded):
        assert {(await guarded.unary(request(FLAGGED))).code for _ in range(5)} == {grpc.StatusCode.OK}
        assert guarded.count("guard_rationed_calls_total", model="m", what="budget", outcome="let through") == 2
    first, *rest = events(tmp_path)
    assert {key: first[key] for key in ("event", "caller", "reason", "approved_by", "until")} == {
        "event": "guard.exempt",
        "caller": "peer:127.0.0.1",
        "reason": "load test",
        "approved_by": ["a"],
        "until": "2999-01-01T00:00:00.000000Z",
    }
    assert {(event["action"], event["would_be"], event["enforced"]) for event in rest} == {("allow", "deny", False)}


async def test_time_outs_and_strange_values_are_not_enforced_for_him_either(model: Any) -> None:
    exempt = {"caller": "peer:127.0.0.1", "until": "2999-01-01T00:00:00Z", "reason": "r", "approved_by": ["a"]}
    late = {"detectors": [{"stage": "test_mean", "options": {"slow_s": 1.0}}]}
    limits = {"inspection_timeout_s": 0.2, "on_inspection_timeout": "deny"}
    nan = np.full_like(CLEAN, np.nan)
    for policy, code in (({}, "PERMISSION_DENIED"), ({"exempt": [exempt]}, "OK")):
        async with world(**model(late, mean={"slow_s": 1.0}, policy=policy), limits=limits) as (_, guarded):
            assert (await guarded.unary(request())).code.name == code
    for policy, code in (({}, "INVALID_ARGUMENT"), ({"exempt": [exempt]}, "OK")):
        async with world(**model(MEAN, policy=policy)) as (_, guarded):
            assert (await guarded.unary(request(nan))).code.name == code


# --- ways around


async def test_a_version_that_was_not_fitted_is_no_way_around_a_budget(model: Any) -> None:
    async with world(**model(MEAN, budget=SLOW)) as (_, guarded):
        codes = [(await guarded.unary(request(version="77"))).code.name for _ in range(5)]
        assert codes == ["OK", "OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]


async def test_rows_count_where_the_server_does_not_batch(model: Any) -> None:
    async with world(**model(MEAN, budget=SLOW)) as (_, guarded):
        guarding = guarded.app.runtime.models["m"]
        assert guarding.profile is not None
        guarding.profile = replace(guarding.profile, batching=Batching(max_rows=0))
        assert (await guarded.unary(request(rows(50)))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await guarded.unary(request(rows(3)))).code is grpc.StatusCode.OK


async def test_bits_of_labels_are_paid_before_so_parallel_calls_gain_little(model: Any) -> None:
    async with world(**model(MEAN, budget={"bits_per_day": 6.0})) as (_, guarded):
        replies = await asyncio.gather(*[guarded.unary(request(rows(50))) for _ in range(20)])
        assert {reply.code for reply in replies} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        replies = await asyncio.gather(*[guarded.unary(request()) for _ in range(20)])
        assert 1 <= [reply.code for reply in replies].count(grpc.StatusCode.OK) <= 3


async def test_what_is_forwarded_uninspected_counts_as_telling_the_most(model: Any) -> None:
    late = {"detectors": [{"stage": "test_mean", "options": {"slow_s": 1.0}}]}
    limits = {"inspection_timeout_s": 0.2}
    budget = {"bits_per_day": 4.0}
    async with world(**model(late, mean={"slow_s": 1.0}, budget=budget), limits=limits) as (_, guarded):
        codes = [(await guarded.unary(request())).code.name for _ in range(3)]
        assert codes == ["OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]  # 3.17 bits, and 1.58 more are not left


async def test_a_delay_on_a_stream_keeps_its_deadline(model: Any) -> None:
    async with world(**model(MEAN, UNIFORM, **delaying(6))) as (_, guarded):
        reply = await guarded.stream(request(FLAGGED), timeout=1.5)
        assert len(reply.bodies) == 1


async def test_one_caller_does_not_take_all_the_room_for_delays() -> None:
    rations = Rations(MemoryStore(), Metrics(), b"secret", 8)
    guarded: Any = SimpleNamespace(name="m", settings=SimpleNamespace(policy=SimpleNamespace(delay_s=0.5)))
    decided = Decision(
        Query(np.zeros(1), "greedy", "m", "d"), Action.DELAY, Action.DELAY, enforced=True,
        responses=frozenset({Action.DELAY}),
    )  # fmt: skip
    other = replace(decided, query=replace(decided.query, caller="other"))
    held = [asyncio.create_task(rations.hold(guarded, decided, 60.0)) for _ in range(8)]
    await asyncio.sleep(0.05)
    assert sum(task.done() for task in held) == 6
    late = asyncio.create_task(rations.hold(guarded, other, 60.0))
    await asyncio.sleep(0.05)
    assert not late.done()
    await asyncio.gather(*held, late)
    assert not rations.delayed


# --- alone


class Away(MemoryStore):
    async def take(self, *_: Any, **__: Any) -> tuple[float, ...]:
        raise ConnectionError


async def test_a_store_that_is_away_refuses_nobody() -> None:
    metrics = Metrics()
    rations = Rations(Away(), metrics, b"secret", 1)
    policy = SimpleNamespace(throttle_rows_per_s=1.0, throttle_burst_rows=1.0)
    guarded: Any = SimpleNamespace(name="m", settings=SimpleNamespace(policy=policy))
    assert await rations.throttle(guarded, "c", 1) is None
    assert metrics._registry.get_sample_value("guard_unrationed_calls_total", {"model": "m"}) == 1


def test_delays_are_drawn_by_a_key() -> None:
    decision = Decision(Query(np.zeros(1), "c", "m", "d1"), Action.DELAY, Action.DELAY, enforced=True)
    mine, other = (Rations(MemoryStore(), Metrics(), key, 1) for key in (b"mine", b"other"))
    policy = Policy(delay_s=2.0)
    drawn = [mine.delay_s(decision, policy, 100.0), other.delay_s(decision, policy, 100.0)]
    assert drawn[0] == mine.delay_s(decision, policy, 100.0) != drawn[1]
    assert all(1.0 <= one <= 2.0 for one in drawn)
    assert mine.delay_s(decision, policy, 1.0) == 0.5
    assert mine.delay_s(decision, policy, -1.0) == 0.0


async def test_a_bucket_is_a_callers_own_and_a_models() -> None:
    store = MemoryStore()
    bucket = (Bucket("throttle", 0.001, 1.0),)
    assert await store.take("m", "a", bucket, 1e9) == (0.0,)
    assert (await store.take("m", "a", bucket, 1e9))[0] > 0
    assert await store.take("m", "b", bucket, 1e9) == (0.0,)
    assert await store.take("n", "a", bucket, 1e9) == (0.0,)
