"""Rows of concurrent calls in one run: with runs that wait until they are told to, and with real networks."""

import asyncio
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import TensorProto, helper

from guard import networks
from guard.batching import MOST_BATCHES, Gatherer, Gathering
from guard.networks import CUDA, Networks
from guard.proxy.budget import Budget
from guard.proxy.crew import Crew
from tests import tiny_networks

SHAPE = (4, 3, 2)
ALWAYS = 30.0  # seconds: longer than any test
SOON = 10.0


def rows(n=1, value=1.0, width=3):
    return np.full((n, width), value, np.float32)


@dataclass
class Run:
    """Doubles rows, once it may; keeps what it ran."""

    may: threading.Event = field(default_factory=threading.Event)
    ran: list = field(default_factory=list)
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, x):
        self.ran.append(x.copy())
        self.began.release()
        assert self.may.wait(ALWAYS)
        return [self.answer(x)]

    def answer(self, x):
        return x * 2

    @property
    def sizes(self):
        return [len(x) for x in self.ran]


@dataclass
class Told:
    """What was counted."""

    ran: list = field(default_factory=list)
    waited: list = field(default_factory=list)
    alone: list = field(default_factory=list)

    def how(self, **values):
        return Gathering(
            where="everywhere",
            on_run=lambda name, n: self.ran.append(n),
            on_wait=lambda name, s: self.waited.append(s),
            on_alone=lambda name, why: self.alone.append(why),
            **{"max_wait_s": 0.0, "patience_s": ALWAYS, "max_rows": 8, **values},
        )

    def gatherer(self, turns=1, max_rows=8, **values):
        return Gatherer(self.how(**values), "net", max_rows=max_rows, turns=turns)


@contextmanager
def threads(n=16):
    pool = ThreadPoolExecutor(n)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def until(true):
    ends = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


def busy(gatherer, run, pool):
    """One call runs: whoever comes now waits for his turn."""
    first = pool.submit(gatherer, run, rows(1, 0.0))
    assert run.began.acquire(timeout=SOON)
    return first


def waiting(gatherer, n):
    """So many rows are there, the running ones among them."""
    until(lambda: gatherer._waiting == n)


def test_who_is_alone_runs_at_once():
    told, run = Told(), Run()
    run.may.set()
    gatherer = told.gatherer(max_wait_s=ALWAYS)
    for value in range(3):
        np.testing.assert_array_equal(gatherer(run, rows(2, value))[0], rows(2, 2 * value))
    assert told.ran == run.sizes == [2, 2, 2]
    assert len(told.waited) == 3
    assert max(told.waited) < 1
    assert told.alone == []


def test_who_comes_while_it_runs_goes_together():
    told, run = Told(), Run()
    gatherer = told.gatherer()
    with threads() as pool:
        first = busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows(1 + i % 2, i)) for i in range(5)]
        waiting(gatherer, 8)
        run.may.set()
        assert (first.result()[0] == 0).all()
        for i, call in enumerate(calls):
            np.testing.assert_array_equal(call.result()[0], rows(1 + i % 2, 2 * i))
    assert told.ran == run.sizes == [1, 7]
    assert len(told.waited) == 6
    assert gatherer._waiting == 0
    assert gatherer._open == {}


def test_after_a_shared_run_the_next_waits_for_others_but_not_for_long():
    told, run = Told(), Run()
    gatherer = told.gatherer(max_wait_s=0.2)
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows()) for _ in range(2)]
        waiting(gatherer, 3)
        run.may.set()
        wait(calls)
        told.waited.clear()
        gatherer(run, rows())  # nobody comes ...
        assert 0.2 <= told.waited[0] < 2
        gatherer(run, rows())  # ... so that this one expects nobody
        assert told.waited[1] < 0.2
    assert run.sizes == [1, 2, 1, 1]


def test_a_full_batch_waits_for_nobody():
    told, run = Told(), Run()
    run.may.set()
    gatherer = told.gatherer(turns=2, max_wait_s=ALWAYS, max_rows=4)
    gatherer._together = True  # others are expected
    with threads() as pool:
        calls = [pool.submit(gatherer, run, rows()) for _ in range(8)]
        assert all(call.result(SOON) for call in calls)
    assert run.sizes == [4, 4]


def test_rows_that_do_not_fit_open_another_batch():
    told, run = Told(), Run()
    gatherer = told.gatherer(max_rows=8)
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = []
        for n in (3, 3, 3, 7, 1):
            calls.append(pool.submit(gatherer, run, rows(n)))
            waiting(gatherer, 1 + sum(len(c) for c in [rows(m) for m in (3, 3, 3, 7, 1)][: len(calls)]))
        run.may.set()
        assert [len(call.result(SOON)[0]) for call in calls] == [3, 3, 3, 7, 1]
    assert run.sizes[0] == 1
    assert sorted(run.sizes[1:]) == [3, 6, 8]


@pytest.mark.parametrize("n", [0, 8, 9])
def test_none_and_as_many_as_a_batch_go_by_themselves(n):
    told, run = Told(), Run()
    run.may.set()
    assert len(told.gatherer()(run, rows(n))[0]) == n
    assert told.ran == [n]
    assert told.waited == told.alone == []


def test_rows_of_another_shape_are_another_batch():
    told, run = Told(), Run()
    gatherer = told.gatherer()
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows(1, i, width=3 + i % 2)) for i in range(6)]
        waiting(gatherer, 7)
        run.may.set()
        assert [call.result(SOON)[0].shape for call in calls] == [(1, 3 + i % 2) for i in range(6)]
    assert run.sizes == [1, 3, 3]


# --- failures


class Failing(Run):
    """A row of 13 makes it fail, whoever else is there."""

    def answer(self, x):
        if (x == 13).any():
            raise RuntimeError("13")
        return x * 2


def test_a_failure_is_that_of_the_call_whose_row_it_was():
    told, run = Told(), Failing()
    gatherer = told.gatherer()
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows(1, value)) for value in (1, 13, 2)]
        waiting(gatherer, 4)
        run.may.set()
        assert calls[0].result(SOON)[0][0, 0] == 2
        with pytest.raises(RuntimeError, match="13"):
            calls[1].result(SOON)
        assert calls[2].result(SOON)[0][0, 0] == 4
    assert Counter(told.alone) == {"failed": 3}
    assert run.sizes == [1, 3, 1, 1, 1]
    assert gatherer._waiting == 0


def test_a_failure_alone_is_its_own_and_is_not_tried_again():
    told, run = Told(), Failing()
    run.may.set()
    gatherer = told.gatherer()
    with pytest.raises(RuntimeError, match="13"):
        gatherer(run, rows(1, 13))
    assert gatherer(run, rows())[0][0, 0] == 2
    assert told.alone == []
    assert run.sizes == [1, 1]


def test_a_leader_that_is_struck_down_leaves_nobody_hanging():
    class Struck(Run):
        def answer(self, x):
            if len(x) == 3:
                raise KeyboardInterrupt
            return x * 2

    told, run = Told(), Struck()
    gatherer = told.gatherer()
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows()) for _ in range(3)]
        waiting(gatherer, 4)
        run.may.set()
        ends = [type(call.exception(SOON)) for call in calls]
    assert sorted(end.__name__ for end in ends) == ["KeyboardInterrupt", "NoneType", "NoneType"]
    assert gatherer._waiting == 0
    assert gatherer._turns._value == 1


def test_nan_of_one_call_is_not_that_of_others():
    class Spreading(Run):
        def answer(self, x):
            return x * 2 + 0 * x.sum()

    told, run = Told(), Spreading()
    gatherer = told.gatherer()
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows(1, value)) for value in (1, np.nan, 2)]
        waiting(gatherer, 4)
        run.may.set()
        found = [call.result(SOON)[0][0, 0] for call in calls]
    np.testing.assert_array_equal(found, [2, np.nan, 4])
    assert Counter(told.alone) == {"not_finite": 3}


def test_nan_of_ones_own_stays_and_others_are_not_run_again():
    told, run = Told(), Run()
    gatherer = told.gatherer()
    with threads() as pool:
        busy(gatherer, run, pool)
        calls = [pool.submit(gatherer, run, rows(1, value)) for value in (1, np.inf, 2)]
        waiting(gatherer, 4)
        run.may.set()
        assert [call.result(SOON)[0][0, 0] for call in calls] == [2, np.inf, 4]
    assert told.alone == ["not_finite"]
    assert run.sizes == [1, 3, 1]


# --- bounds


def test_past_so_many_rows_calls_go_by_themselves():
    told, run = Told(), Run()
    gatherer = told.gatherer(max_rows=2)
    with threads(MOST_BATCHES * 2 + 3) as pool:
        calls = [busy(gatherer, run, pool)]
        calls += [pool.submit(gatherer, run, rows()) for _ in range(MOST_BATCHES * 2 - 1)]
        waiting(gatherer, MOST_BATCHES * 2)
        assert run.began._value == 0
        further = [pool.submit(gatherer, run, rows()) for _ in range(2)]
        assert run.began.acquire(timeout=SOON)
        assert run.began.acquire(timeout=SOON)
        assert told.alone == ["crowded"] * 2
        run.may.set()
        assert all(call.result(SOON)[0][0, 0] in {0, 2} for call in calls + further)
    assert max(run.sizes) == 2


def test_a_run_that_hangs_holds_nobody_for_longer_than_his_patience():
    told, run = Told(), Run()
    gatherer = told.gatherer(patience_s=0.2, max_rows=3)
    with threads() as pool:
        first = busy(gatherer, run, pool)
        began = time.monotonic()
        calls = [pool.submit(gatherer, run, rows()) for _ in range(5)]
        for call in calls:
            with pytest.raises(TimeoutError):
                call.result(SOON)
        assert time.monotonic() - began < 5
        until(lambda: gatherer._waiting == 1)
        run.may.set()
        assert first.result(SOON)
        assert gatherer(run, rows())[0][0, 0] == 2  # and then all is well
    assert run.sizes == [1, 1]
    assert told.alone == []


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_few_threads_and_many_calls_do_not_lock_each_other_out(workers):
    told, run = Told(), Run()
    run.may.set()
    gatherer = told.gatherer(max_wait_s=0.001)
    with threads(workers) as pool:
        calls = [pool.submit(gatherer, run, rows(1, i)) for i in range(200)]
        assert [call.result(SOON)[0][0, 0] for call in calls] == [2 * i for i in range(200)]
    assert max(run.sizes) <= workers


def test_a_pool_that_is_shut_down_ends_what_runs_and_drops_the_rest():
    """As when a reload retires a runtime."""
    told, run = Told(), Run()
    gatherer = told.gatherer()
    pool = ThreadPoolExecutor(3)
    first = busy(gatherer, run, pool)
    calls = [pool.submit(gatherer, run, rows()) for _ in range(8)]
    waiting(gatherer, 3)
    pool.shutdown(wait=False, cancel_futures=True)
    run.may.set()
    assert first.result(SOON)
    assert [call.result(SOON)[0][0, 0] for call in calls[:2]] == [2, 2]
    assert all(call.cancelled() for call in calls[2:])
    assert run.sizes == [1, 2]
    assert gatherer._waiting == 0


async def test_a_query_whose_time_is_over_does_not_hold_up_the_batch():
    told, run = Told(), Run()
    gatherer = told.gatherer()
    with threads() as pool:
        first, crew = busy(gatherer, run, pool), Crew("test-batching", 16)
        short, long = Budget(0.05, crew), Budget(ALWAYS, crew)
        leaves = asyncio.ensure_future(short.run(gatherer, run, rows(1, 1)))
        await asyncio.to_thread(waiting, gatherer, 2)  # it leads
        stays = [asyncio.ensure_future(long.run(gatherer, run, rows(1, value))) for value in (2, 3)]
        await asyncio.to_thread(waiting, gatherer, 4)
        with pytest.raises(TimeoutError):
            await leaves
        run.may.set()
        assert [found[0][0, 0] for found in await asyncio.gather(*stays)] == [4, 6]
        first.result(SOON)
        crew.close()
    assert run.sizes == [1, 3]


# --- networks


def doubling(rows="n", width=3):
    return tiny_networks.model([helper.make_node("Add", ["x", "x"], ["y"])], {"x": [rows, width]}, {"y": [rows, width]})


def gathering(told, max_wait_s=0.005, **values):
    return Networks(told.how(max_wait_s=max_wait_s, **values))


@pytest.mark.parametrize("callers", [2, 8, 24])
def test_batched_or_not_a_row_has_the_same_outputs(callers):
    told, raw = Told(), tiny_networks.auxiliary(SHAPE)
    batched, plain = gathering(told, max_rows=32).load(raw), networks.load(raw)
    rng = np.random.default_rng(callers)
    xs = [rng.random((int(n), *SHAPE), dtype=np.float32) for n in rng.integers(1, 5, size=300)]
    with threads(callers) as pool:
        found = list(pool.map(batched, xs))
    for x, one in zip(xs, found, strict=True):
        alone = plain(x)
        assert one.keys() == alone.keys()
        for name, y in alone.items():
            np.testing.assert_allclose(one[name], y, rtol=1e-5, atol=1e-6)
    assert sum(told.ran) == sum(len(x) for x in xs)
    assert len(told.ran) < len(xs)
    assert told.alone == []


def test_a_batching_network_still_runs_once_on_an_array_that_nobody_can_write_to():
    told = Told()
    network, x = gathering(told).load(tiny_networks.auxiliary(SHAPE)), np.zeros((2, *SHAPE), np.float32)
    x.flags.writeable = False
    assert network(x) is network(x)
    assert told.ran == [2]
    with pytest.raises(ValueError, match="read-only"):
        network(x)["logits"][0] = 0


@pytest.mark.parametrize(("fixed", "most"), [("n", 16), (4, 4), (16, 16), (32, 16)])
def test_what_the_file_fixes_is_kept(fixed, most):
    told = Told()
    network = gathering(told, max_wait_s=0.05, max_rows=16).load(doubling(fixed))  # whoever is late on a busy machine
    xs = [np.random.default_rng(i).random((1 + i % 3, 3), dtype=np.float32) for i in range(200)]
    meet = threading.Barrier(4)  # calls so short may never meet by themselves

    def call(x):
        meet.wait(10)
        return network(x)

    with threads(12) as pool:
        for x, found in zip(xs, pool.map(call, xs), strict=True):
            np.testing.assert_array_equal(found["y"], x + x)
    assert max(told.ran) <= most
    assert len(told.ran) < len(xs)


def test_a_large_call_goes_in_chunks_all_the_same():
    told = Told()
    network = gathering(told).load(doubling())
    x = np.random.default_rng(0).random((networks.CHUNK_ROWS + 3, 3), dtype=np.float32)
    np.testing.assert_array_equal(network(x)["y"], x + x)
    assert told.ran == [networks.CHUNK_ROWS, 3]


@pytest.mark.parametrize(
    ("raw", "how"),
    [(doubling(1), {}), (doubling(), {"max_rows": 1})],
)
def test_where_there_is_one_row_a_run_there_is_nothing_to_gather(raw, how):
    told = Told()
    network = Networks(told.how(**how)).load(raw)
    network(rows(2))
    assert network._gatherer is None
    assert told.ran == told.alone == []


def test_it_is_for_gpus_unless_asked_for():
    assert Networks().load(doubling())._gatherer is None
    on_gpu = networks.load(doubling())._session.get_providers()[0] == CUDA
    assert (Networks(Gathering(where="gpu")).load(doubling())._gatherer is not None) == on_gpu


def mixing(how):
    """Centred by the mean of all rows; or only where there are two, by their order."""
    reduce = helper.make_node("ReduceMean" if how == "mean" else "ReduceMax", ["x", "axes"], ["m"], keepdims=1)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("x", "y")]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    graph = helper.make_graph([reduce, helper.make_node("Sub", ["x", "m"], ["y"])], "g", info[:1], info[1:], [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("how", ["mean", "max"])
def test_a_network_whose_rows_change_each_other_is_not_batched(how, caplog):
    told = Told()
    with caplog.at_level(logging.WARNING):
        network = Networks(told.how()).load(mixing(how), "denoiser")
    assert network._gatherer is None
    assert told.alone == ["mixes_rows"]
    assert "network denoiser: its calls are not batched" in caplog.text


def test_what_is_free_is_tried_at_some_size():
    told = Told()
    assert gathering(told).load(tiny_networks.towards_grey(("h", "w", 3)))._gatherer is not None


def test_a_network_that_cannot_be_tried_is_not_batched():
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 12])
    info = [
        helper.make_tensor_value_info(*one)
        for one in (("x", TensorProto.FLOAT, ["n", "w"]), ("y", TensorProto.FLOAT, ["n", 12]))
    ]
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "g", info[:1], info[1:], [shape])
    raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    told = Told()
    network = Networks(told.how()).load(raw)
    assert network._gatherer is None
    assert network(np.ones((2, 12), np.float32))["y"].shape == (2, 12)  # though it serves


# --- where there is a GPU


@pytest.fixture
def cuda():
    """A network that runs on CUDA; elsewhere these tests say that they did not run."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if CUDA not in onnxruntime.get_available_providers():
        pytest.skip(f"not run on a GPU: onnxruntime offers {', '.join(onnxruntime.get_available_providers())}")
    told = Told()
    network = Networks(Gathering(where="gpu", on_run=lambda _, n: told.ran.append(n))).load(
        tiny_networks.auxiliary(SHAPE)
    )
    if network._session.get_providers()[0] != CUDA:
        pytest.skip(f"not run on a GPU: the session uses {network._session.get_providers()[0]}")
    return network, told


def test_on_a_gpu_calls_are_batched_and_agree_with_single_ones(cuda):
    network, told = cuda
    assert network._gatherer is not None
    xs = [np.random.default_rng(i).random((1, *SHAPE), dtype=np.float32) for i in range(500)]
    alone = [network._run(x) for x in xs]
    with threads(32) as pool:
        found = list(pool.map(network, xs))
    for one, (logits, *_) in zip(found, alone, strict=True):
        np.testing.assert_allclose(one["logits"], logits, rtol=1e-3, atol=1e-4)
    assert len(told.ran) < len(xs)
