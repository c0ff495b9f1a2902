"""One answer of several workers' answers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc import aio

from guard.proxy import gathering
from guard.proxy.gathering import Gathered, Joined, joined_callers, joined_status
from guard.wire.guard.v1 import guard_pb2 as pb


def status(*, ready: bool = True, reason: str = "", drift: tuple[int, bool] | None = None) -> pb.StatusResponse:
    stage = pb.StageStatus(name="s", kind="detector")
    if drift is not None:
        stage.drift.rows, stage.drift.alarm = drift
    return pb.StatusResponse(models=[pb.ModelStatus(name="m", ready=ready, reason=reason, stages=[stage])])


def test_a_model_is_ready_where_all_say_so() -> None:
    assert joined_status([status(), status()]).models[0].ready
    both = joined_status([status(), status(ready=False, reason="no server"), status()])
    assert not both.models[0].ready
    assert both.models[0].reason == "no server"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([None, None], None),
        ([None, (5, False)], (5, False)),
        ([(9, False), (5, False), None], (9, False)),
        ([(9, False), (5, True)], (5, True)),
    ],
)
def test_drift_is_the_most_alarming(told: list[tuple[int, bool] | None], expected: tuple[int, bool] | None) -> None:
    (stage,) = joined_status([status(drift=one) for one in told]).models[0].stages
    assert ((stage.drift.rows, stage.drift.alarm) if stage.HasField("drift") else None) == expected


def test_a_model_that_one_does_not_know_stays() -> None:
    assert [model.name for model in joined_status([status(), pb.StatusResponse()]).models] == ["m"]


def caller(name: str, level: int, log_value: float = 0.0) -> pb.Caller:
    return pb.Caller(model="m", caller=name, level=level, evidence=[pb.Evidence(monitor="f", log_value=log_value)])


def test_callers_of_one_store_are_told_once() -> None:
    same = pb.ListCallersResponse(callers=[caller("a", 3), caller("b", 2, 1.0)], left_out=7)
    joined = joined_callers([same, same], 2)
    assert [one.caller for one in joined.callers] == ["a", "b"]
    assert joined.left_out == 7


def test_callers_of_several_stores_are_told_by_the_most_alarmed() -> None:
    first = pb.ListCallersResponse(callers=[caller("a", 3), caller("b", 1)])
    second = pb.ListCallersResponse(callers=[caller("b", 4, 9.0), caller("c", 3, 1.0)])
    joined = joined_callers([first, second], 2)
    assert [(one.caller, one.level) for one in joined.callers] == [("b", 4), ("c", 3)]
    assert joined.left_out == 1


def test_a_journal_that_has_nothing() -> None:
    empty = Joined(())
    assert list(empty.events) == []
    assert empty.find("d") is None
    assert empty.origin("m", 1) is None


class Context:
    """A call's end."""

    def time_remaining(self) -> float:
        return 5.0

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Aborted(code, details)


class Aborted(Exception):
    pass


class FakeLink:
    """A worker that answers, or does not."""

    def __init__(self, code: grpc.StatusCode | None = None, details: str = "", **answers: object) -> None:
        self.code, self.details, self.answers = code, details, answers
        self.asked: list[str] = []
        self.api = self.own = self

    def __getattr__(self, name: str) -> object:
        async def call(*_: object, **__: object) -> object:
            self.asked.append(name)
            if self.code is not None:
                nothing = aio.Metadata()
                raise aio.AioRpcError(self.code, nothing, nothing, self.details)
            return self.answers[name]

        return call


AWAY = grpc.StatusCode.UNAVAILABLE


async def test_one_that_is_away_is_passed_over() -> None:
    gathered = Gathered([FakeLink(AWAY), FakeLink(Status=status())], 1.0)
    told = await gathered.Status(pb.StatusRequest(), Context())
    assert told.models[0].ready
    assert told.started.seconds == 1


async def test_nobody_there() -> None:
    gathered = Gathered([FakeLink(AWAY), FakeLink(AWAY)], 1.0)
    with pytest.raises(Aborted, match="no worker answers"):
        await gathered.Status(pb.StatusRequest(), Context())


async def test_what_somebody_says_counts_more() -> None:
    links = [FakeLink(AWAY), FakeLink(grpc.StatusCode.NOT_FOUND, "there is no such model")]
    with pytest.raises(Aborted, match="no such model"):
        await Gathered(links, 1.0).ListCallers(pb.ListCallersRequest(), Context())


async def test_inspecting_goes_on_to_the_next() -> None:
    links = [FakeLink(AWAY), FakeLink(Inspect=pb.InspectResponse(decision_id="d"))]
    gathered = Gathered(links, 1.0)
    for _ in range(4):
        assert (await gathered.Inspect(pb.InspectRequest(), Context())).decision_id == "d"
    assert 1 <= len(links[0].asked) <= 3, "in turn"
    refusing = [FakeLink(grpc.StatusCode.INVALID_ARGUMENT, "no"), FakeLink(grpc.StatusCode.INVALID_ARGUMENT, "no")]
    with pytest.raises(Aborted, match="no"):
        await Gathered(refusing, 1.0).Inspect(pb.InspectRequest(), Context())
    assert sum(len(link.asked) for link in refusing) == 1, "what is refused is not asked again"


async def test_all_forgive() -> None:
    links = [FakeLink(Forgive=pb.ForgiveResponse(forgiven=True)), FakeLink(Forgive=pb.ForgiveResponse())]
    assert (await Gathered(links, 1.0).Forgive(pb.ForgiveRequest(), Context())).forgiven
    assert [link.asked for link in links] == [["Forgive"], ["Forgive"]]
    away = [FakeLink(AWAY, "the store is away"), FakeLink(Forgive=pb.ForgiveResponse())]
    with pytest.raises(Aborted, match="the store is away"):
        await Gathered(away, 1.0).Forgive(pb.ForgiveRequest(), Context())


async def test_explaining_needs_a_subject_that_is_known() -> None:
    link = FakeLink(events=[], Explain=pb.ExplainResponse(), Status=status())
    gathered = Gathered([link], 1.0)
    with pytest.raises(Aborted, match="is needed"):
        await gathered.Explain(pb.ExplainRequest(), Context())
    for asked in (pb.ExplainRequest(decision_id="d"), pb.ExplainRequest(caller="c")):
        with pytest.raises(Aborted, match="nothing is kept"):
            await gathered.Explain(asked, Context())
    with pytest.raises(Aborted, match="no such model"):
        await gathered.Explain(pb.ExplainRequest(caller="c", model="x"), Context())


@pytest.mark.parametrize("turns", range(4))
async def test_a_watch_of_a_worker_ends_whenever_its_reader_leaves(turns: int) -> None:
    """Also in the moment in which the worker's head has come, where asyncio's wait_for loses a cancellation."""
    head: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Watching:
        async def initial_metadata(self) -> None:
            await head

        def cancel(self) -> None:
            pass

        async def __aiter__(self) -> Any:
            while True:
                await asyncio.sleep(0.01)
                yield None

    link: Any = SimpleNamespace(api=SimpleNamespace(Watch=lambda _: Watching()))
    task = asyncio.create_task(gathering._watch(link, pb.WatchRequest(), 0, asyncio.Queue(9), asyncio.Event()))
    await asyncio.sleep(0.02)
    head.set_result(None)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
