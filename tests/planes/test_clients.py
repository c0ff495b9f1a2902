"""Clients as they are in use: grpcio's threads, tritonclient, h2load. Guard is a process of its own here."""

import asyncio
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc import aio

from bench.proxy.programs import Missing, program
from tests.planes import frames
from tests.planes.at import ask, until
from tests.planes.frames import wire
from tests.planes.served import MIB, Far
from tests.proxy.world import CLEAN, INFER, STREAM, answer, request

ROWS = np.tile(CLEAN, (90, 1))


def infer_input() -> list[triton.InferInput]:
    made = triton.InferInput("x", list(ROWS.shape), "FP32")
    made.set_data_from_numpy(ROWS)
    return [made]


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_threads_of_grpcio(far: Far, compression: grpc.Compression | None) -> None:
    with grpc.insecure_channel(far.address) as channel, ThreadPoolExecutor(16) as pool:
        method: Any = channel.unary_unary(INFER)
        sent = [request(ROWS, request_id=str(i)) for i in range(300)]
        replies = list(pool.map(lambda body: method(body, timeout=20, compression=compression), sent))
        assert all(b"%d" % i in reply for i, reply in enumerate(replies))


def test_a_stream_of_grpcios_threads(far: Far) -> None:
    with grpc.insecure_channel(far.address) as channel:
        method: Any = channel.stream_stream(STREAM)
        assert len(list(method(iter([request()] * 50), timeout=20))) == 50


def test_a_future_that_is_cancelled(far: Far) -> None:
    with grpc.insecure_channel(far.address) as channel:
        method: Any = channel.unary_unary(INFER)
        for _ in range(50):
            method.future(request(), timeout=5).cancel()
        assert method(request(), timeout=5)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient(far: Far, compression: str | None) -> None:
    with triton.InferenceServerClient(far.address) as client:
        assert client.is_server_live() is False  # the server's answer is `other`, and passes as it is
        assert client.is_server_ready()
        assert client.get_model_metadata("m").inputs[0].name == "x"
        result = client.infer("m", infer_input(), request_id="7", compression_algorithm=compression, client_timeout=20)
        np.testing.assert_array_equal(result.as_numpy("y"), answer(ROWS))
        assert result.get_response().id == "7"


def test_tritonclients_errors(far: Far) -> None:
    from tritonclient.utils import InferenceServerException

    with triton.InferenceServerClient(far.address) as client:
        with pytest.raises(InferenceServerException, match="the method is not allowed"):
            client.load_model("m")
        with pytest.raises(InferenceServerException, match="there is no such model"):
            client.infer("another", infer_input())


def test_tritonclients_stream(far: Far) -> None:
    results: list[Any] = []
    done = threading.Event()

    def heard(result: Any, error: Any) -> None:
        results.append((result, error))
        if len(results) == 30:
            done.set()

    with triton.InferenceServerClient(far.address) as client:
        client.start_stream(heard)
        for i in range(30):
            client.async_stream_infer("m", infer_input(), request_id=str(i))
        assert done.wait(20)
        client.stop_stream()
    assert [error for _, error in results] == [None] * 30
    assert [result.get_response().id for result, _ in results] == [str(i) for i in range(30)]


async def test_tritonclients_asyncio(far: Far) -> None:
    async with triton_aio.InferenceServerClient(far.address) as client:
        results = await asyncio.gather(*(client.infer("m", infer_input()) for _ in range(50)))
        assert all(np.array_equal(result.as_numpy("y"), answer(ROWS)) for result in results)


@pytest.fixture(scope="module")
def h2load() -> Iterator[str]:
    try:
        yield program("h2load")
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    "options",
    [
        ("-n1000", "-c8", "-m10"),
        ("-n300", "-c100", "-m1"),
        ("-n400", "-c2", "-m180"),  # at once no more than have a place or may wait, by default
        ("-n100", "-c4", "-m4", "--window-bits=10", "--connection-window-bits=12"),
        ("-n100", "-c4", "-m4", "--header-table-size=0", "--encoder-header-table-size=0"),
    ],
    ids=["plain", "many connections", "many streams", "small windows", "no table"],
)
async def test_h2load(far: Far, h2load: str, tmp_path: Path, options: tuple[str, ...]) -> None:
    """nghttp2's own load: every request is answered, with trailers that say OK."""
    body, log = tmp_path / "body", tmp_path / "log"
    body.write_bytes(frames.message(request(ROWS)))
    command = [h2load, *options, f"--data={body}", f"--log-file={log}", "-T", "20"]
    command += ["-H", "te: trailers", "-H", "content-type: application/grpc"]
    before = far.count("grpc_server_handled_total", grpc_method="ModelInfer", grpc_code="OK")
    command += [f"http://{far.address}{INFER}"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    total = int(options[0][2:])
    assert re.search(rf"requests: {total} total, .*, {total} succeeded, 0 failed, 0 errored", done.stdout), done.stdout
    assert re.search(rf"status codes: {total} 2xx", done.stdout)
    await until(
        lambda: far.count("grpc_server_handled_total", grpc_method="ModelInfer", grpc_code="OK") - before == total
    )


async def _use(far: Far) -> None:
    """Connections, calls, and streams that are cancelled: a hundred and twenty of each."""

    async def one() -> None:
        async with wire(far.address) as caller:
            for number in range(1, 24, 4):
                caller.send(frames.call(number, INFER.encode(), request(request_id=str(number))))
                caller.send(frames.headers(number + 2, frames.head(STREAM.encode(), (b"x-key", b"v" * 500))))
                caller.send(frames.data(number + 2, frames.message(request())))
            for number in range(1, 24, 4):
                assert (await caller.ended(number)).grpc == 0
                caller.send(frames.rst(number + 2))

    await asyncio.gather(*(one() for _ in range(20)))


async def test_memory_does_not_grow_with_use(far: Far) -> None:
    before, files = 0, 0
    for i in range(4):
        await _use(far)
        if i == 1:
            before, files = far.rss, far.files
    await until(lambda: far.files <= files + 5)
    await until(lambda: far.count("guard_calls_in_flight") == 0)
    assert far.rss - before < 8 * MIB


async def test_memory_does_not_grow_with_requests_that_come_too_late(far: Far) -> None:
    """Six hundred kilobytes each, that arrive as the deadline passes."""
    body, before = request(np.full((1, 4), 0.25, np.float32), request_id="x" * 600_000), 0
    for i in range(220):
        if i == 20:
            before = far.rss
        async with aio.insecure_channel(far.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            await ask(channel, body, timeout=0.001)
    await until(lambda: far.count("guard_calls_in_flight") == 0)
    assert far.rss - before < 16 * MIB


def test_nothing_was_said_in_the_log(far: Far) -> None:
    assert far.complaints() == []
