import asyncio
import hashlib
import threading

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from adversary.attack import REFUSED, BudgetSpent
from adversary.oracle import Answered, AsyncOracle, Endpoint, Oracle, OracleError, Refused, reply_labels
from tests.adversary.tiny import Tiny, serving


def softmax_like(x):
    return x / x.sum(axis=1, keepdims=True)


def ask(tiny, budget=100, **options):
    return Oracle(Endpoint(tiny.address, "tiny", **options), budget)


X = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]], np.float32)


@pytest.mark.parametrize("encoding", ["raw", "typed"])
def test_answers_are_the_models_own(encoding):
    with serving(Tiny(lambda x: x * 2)) as tiny, ask(tiny, encoding=encoding) as oracle:
        reply = oracle.query(X)
        assert isinstance(reply, Answered)
        assert np.allclose(reply.y, X * 2)
        assert reply.decision_id == "decision-1"
        assert bool(tiny.requests[0].raw_input_contents) == (encoding == "raw")
        assert oracle.labels(X).tolist() == [3, 0]


def test_the_budget_is_hard_and_nothing_is_sent_past_it():
    with serving(Tiny(lambda x: x)) as tiny, ask(tiny, budget=3) as oracle:
        oracle.query(X)
        assert oracle.left == 1
        with pytest.raises(BudgetSpent):
            oracle.query(X)
        assert len(tiny.requests) == 1
        oracle.query(X[:1])
        assert (oracle.spent, oracle.left) == (3, 0)


def test_the_budget_holds_under_concurrency():
    async def run(tiny):
        async with AsyncOracle(Endpoint(tiny.address, "tiny"), 5) as oracle:
            with pytest.raises(BudgetSpent):
                await oracle.replies([X[:1]] * 8)
            assert oracle.ledger.spent == len(oracle.ledger.records) == 5

    with serving(Tiny(lambda x: x)) as tiny:
        asyncio.run(run(tiny))
        assert len(tiny.requests) == 5


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"])
def test_a_refusal_is_a_value(code):
    with serving(Tiny(lambda x: x, lambda x, n: grpc.StatusCode[code])) as tiny, ask(tiny) as oracle:
        assert oracle.query(X) == Refused(code, "decision-1")
        assert oracle.labels(X).tolist() == [REFUSED, REFUSED]
        assert oracle.probabilities(X) == Refused(code, "decision-3")
        assert [record.refused for record in oracle.records] == [True] * 3
        assert oracle.spent == 6  # refused rows count


def test_a_failure_is_an_error_and_is_recorded():
    with serving(Tiny(lambda x: x, lambda x, n: grpc.StatusCode.INTERNAL)) as tiny, ask(tiny) as oracle:
        with pytest.raises(OracleError, match="INTERNAL"):
            oracle.query(X)
        assert [record.status for record in oracle.records] == ["INTERNAL"]


def busy_at(*calls):
    return lambda x, n: grpc.StatusCode.UNAVAILABLE if n in calls else None


def test_what_nobody_took_is_sent_again_and_each_try_is_paid():
    with serving(Tiny(lambda x: x, busy_at(1, 2))) as tiny, ask(tiny) as oracle:
        assert oracle.labels(X).tolist() == [3, 0]
        assert [(record.status, record.tries) for record in oracle.records] == [("OK", 3)]
        assert oracle.spent == 6
        assert [x.tolist() for x in tiny.inputs] == [tiny.inputs[0].tolist()] * 3


def test_several_at_once_are_sent_again_too():
    with serving(Tiny(lambda x: x, busy_at(2, 3))) as tiny, ask(tiny) as oracle:
        replies = oracle.replies([X[:1], X[1:], X[:1]], concurrency=3)
        assert [np.allclose(reply.y, x) for reply, x in zip(replies, (X[:1], X[1:], X[:1]), strict=True)] == [True] * 3
        assert [record.status for record in oracle.records] == ["OK"] * 3
        assert sum(record.tries for record in oracle.records) == oracle.spent == len(tiny.requests) == 5


def test_an_event_loop_sends_it_again_too():
    async def run(tiny):
        async with AsyncOracle(Endpoint(tiny.address, "tiny"), 9) as oracle:
            assert isinstance(await oracle.query(X), Answered)
            return oracle.ledger

    with serving(Tiny(lambda x: x, busy_at(1))) as tiny:
        ledger = asyncio.run(run(tiny))
    assert (ledger.spent, [(record.status, record.tries) for record in ledger.records]) == (4, [("OK", 2)])


@pytest.mark.parametrize(("options", "tries"), [({"retries": 0}, 1), ({"retries": 1}, 2), ({"budget": 5}, 2)])
def test_it_is_sent_no_more_often_than_is_allowed_nor_past_the_budget(options, tries):
    with serving(Tiny(lambda x: x, busy_at(*range(9)))) as tiny, ask(tiny, **options) as oracle:
        with pytest.raises(OracleError, match="UNAVAILABLE"):
            oracle.query(X)
        assert [record.tries for record in oracle.records] == [tries] == [len(tiny.requests)]


def test_a_server_that_went_away_is_called_so_often_and_no_more():
    with serving(Tiny(lambda x: x)) as tiny, ask(tiny, retries=1) as oracle:
        oracle.query(X)
        tiny.stop()
        with pytest.raises(OracleError, match="UNAVAILABLE"):
            oracle.query(X)
        assert [(record.status, record.tries) for record in oracle.records] == [("OK", 1), ("UNAVAILABLE", 2)]
        assert not any(record.refused for record in oracle.records)


def test_a_refusal_that_says_when_to_come_back_is_a_verdict_all_the_same():
    details = [any_pb2.Any()]
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.nanos = 1
    details[0].Pack(retry)
    status = status_pb2.Status(code=8, message="the request was refused", details=details).SerializeToString()
    tiny = Tiny(
        lambda x: x, lambda x, n: grpc.StatusCode.RESOURCE_EXHAUSTED, trailers=[("grpc-status-details-bin", status)]
    )
    with serving(tiny), ask(tiny) as oracle:
        assert oracle.query(X) == Refused("RESOURCE_EXHAUSTED", "decision-1")
        assert len(tiny.requests) == 1


def test_records_say_what_was_sent():
    identities = ((("x-api-key", "one"),), (("x-api-key", "two"),))
    with serving(Tiny(lambda x: x)) as tiny, ask(tiny, identities=identities) as oracle:
        oracle.query(X)
        oracle.use(3)
        oracle.query(X[:1])
        oracle.query(X)
        first, second, third = oracle.records
        assert (first.rows, second.rows) == (2, 1)
        assert first.digest == third.digest != second.digest
        assert (first.identity, second.identity) == (0, 1)
        assert first.started_s <= second.started_s
        assert first.seconds > 0
        assert [sent["x-api-key"] for sent in tiny.metadata] == ["one", "two", "two"]


def test_replies_come_in_order():
    with serving(Tiny(lambda x: x, lambda x, n: None)) as tiny, ask(tiny) as oracle:
        batches = [np.full((1, 4), i / 10, np.float32) for i in range(10)]
        replies = oracle.replies(batches, concurrency=4)
        assert [float(reply.y[0, 0]) for reply in replies] == pytest.approx([i / 10 for i in range(10)])


def test_several_at_once_are_on_their_way_together():
    """The server answers none before four are there; were they sent one by one, the first would wait for ever."""
    gate = threading.Barrier(4)

    def answer(x):
        gate.wait(20)
        return x

    with serving(Tiny(answer)) as tiny, ask(tiny) as oracle:
        assert len(oracle.replies([X[:1]] * 8, concurrency=4)) == 8


def test_what_is_on_its_way_when_another_fails_is_recorded():
    with serving(Tiny(lambda x: x)) as tiny, ask(tiny, budget=5) as oracle:
        with pytest.raises(BudgetSpent):
            oracle.replies([X[:1]] * 8, concurrency=4)
        assert oracle.spent == len(oracle.records) == len(tiny.requests) == 5
    refuse = lambda x, n: grpc.StatusCode.INTERNAL if n == 2 else None
    with serving(Tiny(lambda x: x, refuse)) as tiny, ask(tiny) as oracle:
        with pytest.raises(OracleError, match="INTERNAL"):
            oracle.replies([X[:1]] * 20, concurrency=4)
        assert oracle.spent == len(oracle.records) == len(tiny.requests) < 20


@pytest.mark.parametrize("concurrency", [1, 3])
def test_large_inputs_are_digested_like_small_ones(concurrency):
    """They are digested while they are on their way."""
    x = np.random.default_rng(0).random((1, 200_000), np.float32)
    digest = hashlib.sha256(x.tobytes()).hexdigest()

    async def run(tiny):
        async with AsyncOracle(Endpoint(tiny.address, "tiny"), 1) as oracle:
            await oracle.query(x)
            return oracle.ledger.records

    with serving(Tiny(lambda x: x[:, :4], shape=(-1, 200_000))) as tiny:
        with ask(tiny) as oracle:
            oracle.query(x)
            oracle.replies([x] * 3, concurrency)
            assert {record.digest for record in oracle.records} == {digest}
        assert [record.digest for record in asyncio.run(run(tiny))] == [digest]


def test_a_call_that_is_cut_off_is_recorded():
    arrived, let_go = threading.Event(), threading.Event()

    def answer(x):
        arrived.set()
        let_go.wait(20)
        return x

    async def run(tiny):
        async with AsyncOracle(Endpoint(tiny.address, "tiny"), 9) as oracle:
            task = asyncio.create_task(oracle.query(X))
            await asyncio.to_thread(arrived.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return oracle.ledger

    with serving(Tiny(answer)) as tiny:
        ledger = asyncio.run(run(tiny))
        let_go.set()
    assert [record.status for record in ledger.records] == ["CANCELLED"]


def test_the_models_layout_and_normalisation():
    """x is NCHW in [0, 1]; the model wants NHWC, of which mean and standard deviation are 1/2."""
    x = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    tiny = Tiny(lambda x: x.reshape(2, -1), shape=(-1, 4, 5, 3))
    with serving(tiny):
        with ask(tiny, layout="nchw_to_nhwc", mean=(0.5,) * 3, std=(0.5,) * 3) as oracle:
            oracle.query(x)
            assert np.allclose(tiny.inputs[0], np.moveaxis(x, 1, -1) * 2 - 1, atol=1e-6)
        with ask(tiny) as oracle, pytest.raises(OracleError, match="is its layout another"):
            oracle.query(x)
        with pytest.raises(OracleError, match="above 0"), ask(tiny, std=(0.0,)):
            pass
        assert len(tiny.requests) == 1


def test_whole_number_inputs_get_the_models_bounds():
    with serving(Tiny(lambda x: x, datatype="UINT8")) as tiny, ask(tiny, high=255.0) as oracle:
        oracle.query(np.array([[0.0, 0.5, 0.2, 1.0]], np.float32))
        assert tiny.inputs[0].dtype == np.uint8
        assert tiny.inputs[0].tolist() == [[0, 128, 51, 255]]


def test_half_precision_travels_raw_only():
    with serving(Tiny(lambda x: x, datatype="FP16")) as tiny:
        with ask(tiny) as oracle:
            assert np.allclose(oracle.query(X).y, X, atol=1e-3)
        with ask(tiny, encoding="typed") as oracle, pytest.raises(ValueError, match="send it raw"):
            oracle.query(X)


def test_rows_are_reshaped_to_the_models():
    with serving(Tiny(lambda x: x.reshape(len(x), -1), shape=(-1, 2, 2))) as tiny, ask(tiny) as oracle:
        oracle.query(X)
        assert tiny.inputs[0].shape == (2, 2, 2)
        with pytest.raises(OracleError, match="do not fit"):
            oracle.query(np.zeros((1, 5), np.float32))
        assert len(tiny.requests) == 1


def test_labels_of_a_model_that_answers_with_labels():
    with serving(Tiny(lambda x: x.argmax(1)[:, None], output_datatype="INT64")) as tiny:
        with ask(tiny) as oracle:
            assert oracle.labels(X).tolist() == [3, 0]
        with ask(tiny, meaning="labels") as oracle, pytest.raises(OracleError, match="labels only"):
            oracle.probabilities(X)


@pytest.mark.parametrize(
    ("answer", "meaning"), [(np.log, "auto"), (np.log, "logits"), (lambda x: x, "auto"), (lambda x: x, "probabilities")]
)
def test_probabilities_whatever_the_answer_means(answer, meaning):
    with serving(Tiny(answer)) as tiny, ask(tiny, meaning=meaning) as oracle:
        assert np.allclose(oracle.probabilities(X), softmax_like(X), atol=1e-5)


def test_the_named_output_is_asked_for():
    with serving(Tiny(lambda x: x, outputs=("features", "scores"))) as tiny:
        with ask(tiny) as oracle:
            oracle.query(X)
        with ask(tiny, output_name="scores") as oracle:
            oracle.query(X)
        assert [request.outputs[0].name for request in tiny.requests] == ["features", "scores"]
        with (
            pytest.raises(OracleError, match="name one output of the model: features, scores"),
            ask(tiny, output_name="y"),
        ):
            pass
        with pytest.raises(OracleError, match="name one input of the model: x"), ask(tiny, input_name="y"):
            pass


def test_an_unknown_model_or_an_absent_server_is_an_error():
    with serving(Tiny(lambda x: x)) as tiny:
        with pytest.raises(OracleError, match="NOT_FOUND"), Oracle(Endpoint(tiny.address, "other"), 1):
            pass
        address = tiny.address
    with (
        pytest.raises(OracleError, match=r"no metadata .*Connection refused"),
        Oracle(Endpoint(address, "tiny", timeout_s=0.5), 1),
    ):
        pass


def test_an_answer_with_another_number_of_rows_is_an_error():
    with (
        serving(Tiny(lambda x: x[:1])) as tiny,
        ask(tiny) as oracle,
        pytest.raises(OracleError, match="2 rows were sent"),
    ):
        oracle.query(X)


def test_labels_of_a_reply():
    assert reply_labels(Refused("PERMISSION_DENIED", ""), 2).tolist() == [REFUSED, REFUSED]
    assert reply_labels(Answered(X, ""), 2).tolist() == [3, 0]
