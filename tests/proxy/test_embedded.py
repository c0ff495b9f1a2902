"""The embedded server, against models made on the spot and read with tritonclient's messages."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from guard.proxy import embedded, onnx_model
from guard.proxy.embedded import SERVICE, EmbeddedUpstream
from guard.proxy.seam import Reply
from guard.proxy.status import Code
from guard.settings import ConfigError, Embedded
from guard.types import Array, TensorSpec
from guard.wire import messages
from guard.wire import open_inference_pb2 as pb

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def save(path: Path, nodes: list, inputs: dict, outputs: dict, initializers: tuple = ()) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def identity(path: Path, kind: int, shape: list | None = None) -> Path:
    shape = ["n", 2] if shape is None else shape
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 2 x, half = FP16 of it, total = the sum of all."""
    return save(
        tmp_path_factory.mktemp("onnx") / "m.onnx",
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            helper.make_node("Cast", ["y"], ["half"], to=TensorProto.FLOAT16),
            helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, ["n", 3])},
        {
            "y": (TensorProto.FLOAT, ["n", 3]),
            "half": (TensorProto.FLOAT16, ["n", 3]),
            "total": (TensorProto.FLOAT, []),
        },
    )


@pytest.fixture
async def server(file: Path) -> AsyncIterator[EmbeddedUpstream]:
    upstream = EmbeddedUpstream(Embedded(file=file, max_batch_rows=8), "m")
    yield upstream
    await upstream.close()


async def ask(upstream: EmbeddedUpstream, method: str, body: bytes = b"", timeout_s: float = 30.0) -> Reply:
    return await upstream.unary(SERVICE + method, body, (), timeout_s)


async def infer(upstream: EmbeddedUpstream, body: bytes) -> Reply:
    return await ask(upstream, "ModelInfer", body)


def request(x: Array = X, model: str = "m", **options: object) -> bytes:
    return messages.build_request(model, {"x": x}, **options)


async def test_it_says_what_it_is(server: EmbeddedUpstream) -> None:
    live = await ask(server, "ServerLive")
    assert pb.ServerLiveResponse.FromString(live.body).live
    ready = await ask(server, "ServerReady")
    assert pb.ServerReadyResponse.FromString(ready.body).ready
    about = pb.ServerMetadataResponse.FromString((await ask(server, "ServerMetadata")).body)
    assert about.name == "onnxruntime"
    reply = await ask(server, "ModelMetadata", pb.ModelMetadataRequest(name="m", version="1").SerializeToString())
    known = messages.parse_metadata(reply.body)
    assert (known.name, known.versions, known.platform) == ("m", ("1",), "onnxruntime_onnx")
    assert known.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert known.outputs == (
        TensorSpec("y", "FP32", (-1, 3)),
        TensorSpec("half", "FP16", (-1, 3)),
        TensorSpec("total", "FP32", ()),
    )
    assert server.provider == "CPUExecutionProvider"
    assert server.name == "m"


@pytest.mark.parametrize(
    ("name", "version", "ready"), [("m", "", True), ("m", "1", True), ("m", "2", False), ("o", "", False)]
)
async def test_only_the_one_model_is_ready(server: EmbeddedUpstream, name: str, version: str, ready: bool) -> None:
    reply = await ask(server, "ModelReady", pb.ModelReadyRequest(name=name, version=version).SerializeToString())
    assert pb.ModelReadyResponse.FromString(reply.body).ready is ready


async def test_raw_is_answered_raw(server: EmbeddedUpstream) -> None:
    reply = await infer(server, request(outputs=["y"]))
    response = pb.ModelInferResponse.FromString(reply.body)
    assert list(response.raw_output_contents) == [(X + X).tobytes()]
    assert not response.outputs[0].HasField("contents")


async def test_typed_is_answered_typed(server: EmbeddedUpstream) -> None:
    reply = await infer(server, request(outputs=["y"], raw=False))
    response = pb.ModelInferResponse.FromString(reply.body)
    assert not response.raw_output_contents
    assert list(response.outputs[0].contents.fp32_contents) == (X + X).ravel().tolist()


async def test_all_outputs_come_when_none_is_named_raw_where_one_has_no_typed_form(server: EmbeddedUpstream) -> None:
    reply = await infer(server, request(raw=False))
    assert pb.ModelInferResponse.FromString(reply.body).raw_output_contents
    answer = messages.parse_response(reply.body)
    assert list(answer) == ["y", "half", "total"]
    assert answer["half"].dtype == np.float16
    assert answer["total"] == (X + X).sum()


async def test_the_response_names_request_model_and_version(server: EmbeddedUpstream) -> None:
    message = pb.ModelInferRequest.FromString(request(version="1"))
    message.id = "r-1"
    response = pb.ModelInferResponse.FromString((await infer(server, message.SerializeToString())).body)
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "r-1")


async def test_an_output_named_twice_comes_once(server: EmbeddedUpstream) -> None:
    reply = await infer(server, request(outputs=["y", "y"]))
    assert [output.name for output in pb.ModelInferResponse.FromString(reply.body).outputs] == ["y"]


async def test_an_empty_batch_is_a_batch(server: EmbeddedUpstream) -> None:
    reply = await infer(server, request(X[:0], outputs=["y"]))
    assert messages.parse_response(reply.body)["y"].shape == (0, 3)


def with_parameter(on: str) -> bytes:
    message = pb.ModelInferRequest.FromString(request(outputs=["y"]))
    target = message.outputs[0].parameters
    if on == "classification":
        target["classification"].int64_param = 1
    else:
        target["shared_memory_region"].string_param = "r"
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"\xff", Code.INVALID_ARGUMENT, "not a ModelInferRequest"),
        (request(model="other"), Code.NOT_FOUND, "Request for unknown model: 'other' is not found"),
        (request(version="7"), Code.NOT_FOUND, "Request for unknown model: 'm' version '7' is not found"),
        (request(np.zeros((9, 3), np.float32)), Code.INVALID_ARGUMENT, "9 rows, at most 8"),
        (request(X[:, :2]), Code.INVALID_ARGUMENT, "the model takes [-1, 3]"),
        (request(X.astype(np.float64)), Code.INVALID_ARGUMENT, "the model takes FP32"),
        (messages.build_request("m", {"z": X}), Code.INVALID_ARGUMENT, "the model has no input 'z'"),
        (messages.build_request("m", {}), Code.INVALID_ARGUMENT, "input 'x' is missing"),
        (request(outputs=["nope"]), Code.INVALID_ARGUMENT, "the model has no output 'nope'"),
        (with_parameter("classification"), Code.INVALID_ARGUMENT, "neither shared memory nor classification"),
        (with_parameter("shared_memory"), Code.INVALID_ARGUMENT, "neither shared memory nor classification"),
    ],
)
async def test_what_a_client_does_wrong_is_told(server: EmbeddedUpstream, body: bytes, code: Code, text: str) -> None:
    reply = await infer(server, body)
    assert reply.code == code
    assert text in reply.details
    assert reply.body == b""


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
async def test_other_bytes_are_invalid(server: EmbeddedUpstream, method: str) -> None:
    assert (await ask(server, method, b"\xff")).code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(("name", "version"), [("other", ""), ("m", "2")])
async def test_metadata_of_another_model_is_not_found(server: EmbeddedUpstream, name: str, version: str) -> None:
    body = pb.ModelMetadataRequest(name=name, version=version).SerializeToString()
    assert (await ask(server, "ModelMetadata", body)).code == Code.NOT_FOUND


@pytest.mark.parametrize("path", [SERVICE + "RepositoryIndex", "ServerLive", "/other.Service/ServerLive", SERVICE, ""])
async def test_other_methods_are_unimplemented(server: EmbeddedUpstream, path: str) -> None:
    assert (await server.unary(path, b"", (), 1.0)).code == Code.UNIMPLEMENTED


async def test_onnxruntimes_words_stay_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two inputs whose free dimensions must agree: only the run finds out."""
    kind = (TensorProto.FLOAT, ["n"])
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["a", "b"], ["y"], name="secret")],
        {"a": kind, "b": kind},
        {"y": kind},
    )
    upstream = EmbeddedUpstream(Embedded(file=path), "m")
    arrays = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    reply = await infer(upstream, messages.build_request("m", arrays))
    assert reply == Reply(code=Code.INTERNAL, details="inference failed")
    assert "secret" in caplog.text
    await upstream.close()


@pytest.mark.parametrize("raw", [True, False])
async def test_strings_are_text(tmp_path: Path, raw: bool) -> None:
    upstream = EmbeddedUpstream(Embedded(file=identity(tmp_path / "m.onnx", TensorProto.STRING)), "m")
    texts = np.array([["", "nul\0"], ["ünï", "日本"]], dtype=object)
    x = np.vectorize(str.encode, otypes=[object])(texts)
    reply = await infer(upstream, request(x, raw=raw))
    answer = messages.parse_response(reply.body)["y"]
    assert answer.shape == (2, 2)
    assert answer.tolist() == x.tolist()
    reply = await infer(upstream, request(np.array([[b"\xff", b""]], dtype=object), raw=raw))
    assert reply == Reply(code=Code.INVALID_ARGUMENT, details="input 'x' holds a string that is not UTF-8")
    await upstream.close()


@pytest.mark.parametrize(
    "kind",
    [
        *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
        *("FLOAT16", "FLOAT", "DOUBLE"),
    ],
)
async def test_every_datatype_passes(tmp_path: Path, kind: str) -> None:
    number = TensorProto.DataType.Value(kind)
    upstream = EmbeddedUpstream(Embedded(file=identity(tmp_path / "m.onnx", number)), "m")
    x = np.array([[0, 1], [1, 0]], dtype=helper.tensor_dtype_to_np_dtype(number))
    for raw in (True, False) if kind != "FLOAT16" else (True,):
        answer = messages.parse_response((await infer(upstream, request(x, raw=raw))).body)["y"]
        assert answer.dtype == x.dtype
        assert (answer == x).all()
    await upstream.close()


def looping(path: Path) -> Path:
    """A model that runs until it is stopped: a Loop of some hundred million turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    return save(
        path,
        [helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)],
        {"x": (TensorProto.FLOAT, ["n", 3]), "turns": (TensorProto.INT64, [])},
        {"y": (TensorProto.FLOAT, ["n", 3])},
        (helper.make_tensor("yes", TensorProto.BOOL, [], [True]),),
    )


def turns(count: int) -> bytes:
    return messages.build_request("m", {"x": X, "turns": np.array(count, np.int64)})


@pytest.fixture
async def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedUpstream]:
    """One worker, and room for one call to wait."""
    monkeypatch.setattr(embedded.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(embedded, "MAX_WAITING", 1)
    upstream = EmbeddedUpstream(Embedded(file=looping(tmp_path / "m.onnx")), "m")
    yield upstream
    await upstream.close()


FOREVER = turns(2**62)


async def test_a_late_answer_is_none_and_the_run_is_stopped(slow: EmbeddedUpstream) -> None:
    reply = await ask(slow, "ModelInfer", FOREVER, timeout_s=0.2)
    assert reply.code == Code.DEADLINE_EXCEEDED
    assert (await infer(slow, turns(1))).code == Code.OK  # the only worker is free again


async def test_a_cancelled_call_is_stopped(slow: EmbeddedUpstream) -> None:
    task = asyncio.create_task(infer(slow, FOREVER))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await infer(slow, turns(1))).code == Code.OK


async def test_the_queue_is_bounded(slow: EmbeddedUpstream) -> None:
    held = [asyncio.create_task(infer(slow, FOREVER)) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert (await infer(slow, turns(1))).code == Code.RESOURCE_EXHAUSTED
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert (await infer(slow, turns(1))).code == Code.OK


async def test_after_close_it_is_unavailable(file: Path) -> None:
    upstream = EmbeddedUpstream(Embedded(file=file), "m")
    await upstream.close()
    for _ in range(3):
        assert (await infer(upstream, request())).code == Code.UNAVAILABLE
    assert upstream._room._value == embedded.MAX_WAITING + max(1, embedded.os.cpu_count() or 1)


async def each(*bodies: bytes) -> AsyncIterator[bytes]:
    for body in bodies:
        yield body


async def test_a_stream_goes_on_after_an_error(server: EmbeddedUpstream) -> None:
    broken = pb.ModelInferRequest(model_name="other", id="r-2").SerializeToString()
    stream = server.stream(SERVICE + "ModelStreamInfer", each(request(), broken, b"\xff", request()), (), 10.0)
    assert await stream.initial() == ()
    answers = [pb.ModelStreamInferResponse.FromString(answer) async for answer in stream.messages()]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False]
    assert "unknown model" in answers[1].error_message
    assert [answer.infer_response.id for answer in answers] == ["", "r-2", "", ""]
    assert answers[3].infer_response.raw_output_contents[0] == (X + X).tobytes()
    assert await stream.status() == Reply()


async def test_a_stream_has_a_deadline(slow: EmbeddedUpstream) -> None:
    stream = slow.stream(SERVICE + "ModelStreamInfer", each(turns(1), FOREVER), (), 0.3)
    assert len([answer async for answer in stream.messages()]) == 1
    assert (await stream.status()).code == Code.DEADLINE_EXCEEDED
    assert (await infer(slow, turns(1))).code == Code.OK


async def test_a_cancelled_stream_is_stopped(slow: EmbeddedUpstream) -> None:
    stream = slow.stream(SERVICE + "ModelStreamInfer", each(FOREVER), (), None)

    async def read() -> None:
        async for _ in stream.messages():
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await stream.status()).code == Code.CANCELLED
    assert (await infer(slow, turns(1))).code == Code.OK


async def test_a_stream_that_is_cancelled_as_its_answer_comes_ends(server: EmbeddedUpstream) -> None:
    """In one moment of the loop: the cancellation is not lost in the answer."""
    come = asyncio.Event()

    async def bodies() -> AsyncIterator[bytes]:
        yield request()
        await come.wait()
        yield request()
        await asyncio.sleep(60)

    heard: list[bytes] = []

    async def listen() -> None:
        async for body in server.stream(SERVICE + "ModelStreamInfer", bodies(), (), 60.0).messages():
            heard.append(body)  # noqa: PERF401 - as it comes

    real, listening = server._infer, asyncio.create_task(listen())

    async def infer(body: bytes, timeout_s: float | None) -> Reply:
        reply = await real(body, timeout_s)
        if heard:  # of the second
            listening.cancel()
        return reply

    server._infer = infer
    while not heard:
        await asyncio.sleep(0.01)
    come.set()
    done, _ = await asyncio.wait({listening}, timeout=10)
    assert done
    assert listening.cancelled()


async def test_other_streams_are_unimplemented(server: EmbeddedUpstream) -> None:
    stream = server.stream(SERVICE + "ModelInfer", each(request()), (), None)
    assert await stream.initial() == ()
    assert [answer async for answer in stream.messages()] == []
    assert (await stream.status()).code == Code.UNIMPLEMENTED


async def test_calls_run_side_by_side(server: EmbeddedUpstream) -> None:
    bodies = [request(X + i, outputs=["y"]) for i in range(32)]
    replies = await asyncio.gather(*(infer(server, body) for body in bodies))
    for i, reply in enumerate(replies):
        assert (messages.parse_response(reply.body)["y"] == 2 * (X + i)).all()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=r"^embedded\.file: cannot load .*bad\.onnx"):
        EmbeddedUpstream(Embedded(file=tmp_path / "bad.onnx"), "m")


def test_a_type_that_oip_lacks_is_refused(tmp_path: Path) -> None:
    path = identity(tmp_path / "m.onnx", TensorProto.BFLOAT16)
    with pytest.raises(ConfigError, match=r"x is a tensor\(bfloat16\), which cannot be served"):
        EmbeddedUpstream(Embedded(file=path), "m")


def test_a_gpu_is_not_pretended(file: Path) -> None:
    with pytest.raises(ConfigError, match="CPUExecutionProvider, not CUDAExecutionProvider"):
        EmbeddedUpstream(Embedded(file=file, require_gpu=True), "m")


def test_without_onnxruntime_it_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="extras cpu and gpu"):
        EmbeddedUpstream(Embedded(file=file), "m")


def test_onnxruntime_is_imported_on_use_only() -> None:
    code = "import sys, guard.proxy.embedded; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_are_onnxruntimes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = onnx_model._runtime()
    made = []
    real = runtime.SessionOptions
    monkeypatch.setattr(runtime, "SessionOptions", lambda: made.append(real()) or made[-1])
    EmbeddedUpstream(Embedded(file=file, threads=3), "m")
    assert made[0].intra_op_num_threads == 3
