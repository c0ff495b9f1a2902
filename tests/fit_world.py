"""A model small enough to know by heart, its clean inputs, and a real server in front of it.

Images of 8x8 grey pixels, four classes: the brightest quadrant.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

from guard.proxy.ask import ServedModel, _Failed
from guard.settings import Embedded
from guard.types import Array, Batching, ModelMetadata, TensorSpec

SHAPES = {"nchw": (1, 8, 8), "nhwc": (8, 8, 1), "nhw": (8, 8), "flat": (64,)}


def clean_images(count: int = 300, seed: int = 0) -> Array:
    """(N, 8, 8) float32 in [0, 1]: one quadrant bright, noise everywhere, both ends of the range in use."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.0, 0.5, (count, 8, 8)).astype(np.float32)
    for image, quadrant in zip(x, rng.integers(0, 4, count), strict=True):
        row, column = 4 * (quadrant // 2), 4 * (quadrant % 2)
        image[row : row + 4, column : column + 4] += 0.45
    x[:, 0, 0], x[:, 7, 7] = 0.0, 1.0
    return x


def _weights() -> Array:
    """(64, 4): a class's logit is ten times its quadrant's mean."""
    w = np.zeros((8, 8, 4), dtype=np.float32)
    for quadrant in range(4):
        row, column = 4 * (quadrant // 2), 4 * (quadrant % 2)
        w[row : row + 4, column : column + 4, quadrant] = 10 / 16
    return w.reshape(64, 4)


def quadrants_onnx(
    path: Path,
    *,
    layout: str = "nchw",
    answer: str = "logits",
    batch: int | str = "n",
    dtype: int = TensorProto.FLOAT,
    high: float = 1.0,
    second: bool = False,
) -> Path:
    """As an ONNX file. answer: logits, probabilities, labels, both. high: what 1.0 is. second: a gain input."""
    scale = numpy_helper.from_array(np.float32(1 / high), "scale")
    flat = numpy_helper.from_array(np.array([-1, 64], dtype=np.int64), "flat")
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "scale"], ["unit"]),
        helper.make_node("Reshape", ["unit", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["plain" if second else "logits"]),
    ]
    inputs = [helper.make_tensor_value_info("x", dtype, [batch, *SHAPES[layout]])]
    if second:
        nodes.append(helper.make_node("Mul", ["plain", "gain"], ["logits"]))
        inputs.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [batch, 1]))
    if answer == "probabilities":
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    if answer in {"labels", "both"}:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["labels"], axis=1, keepdims=0))
    names = ["logits", "labels"] if answer == "both" else [answer]
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.INT64, [batch])
        if name == "labels"
        else helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 4])
        for name in names
    ]
    constants = [numpy_helper.from_array(_weights(), "w"), scale, flat]
    graph = helper.make_graph(nodes, "quadrants", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, path)
    return path


def logits_of(x: Array) -> Array:
    """The same by numpy: (N, ...) in [0, 1] -> (N, 4)."""
    return x.reshape(len(x), 64).astype(np.float32) @ _weights()


class Pretended:
    """A served model without a wire: metadata, and a function from inputs to outputs."""

    def __init__(
        self, inputs: tuple[TensorSpec, ...], answer: Callable[[Mapping[str, Array]], dict[str, Array]]
    ) -> None:
        self._inputs, self._answer = inputs, answer
        self.rows = 0

    def metadata(self) -> ModelMetadata:
        return ModelMetadata("pretended", ("1",), "", self._inputs, (TensorSpec("y", "FP32", (-1, 4)),))

    def batching(self) -> Batching:
        return Batching()

    def answer(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        self.rows += len(next(iter(arrays.values())))
        return self._answer(arrays)


@contextmanager
def oip_server(
    file: Path, name: str, credentials: grpc.ServerCredentials | None = None, **asking: int
) -> Iterator[str]:
    """The file behind a real gRPC server on a free port: its address."""
    with ServedModel.embedded(Embedded(file=file, **asking), name) as served:
        line = served._line

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                def handle(body: bytes, context: grpc.ServicerContext) -> bytes:
                    try:
                        return line.call(details.method, body, 10.0)
                    except _Failed as error:
                        code = next(c for c in grpc.StatusCode if c.value[0] == error.code)
                        context.abort(code, str(error))

                return grpc.unary_unary_rpc_method_handler(handle)

        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((Handler(),))
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()
