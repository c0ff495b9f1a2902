"""A small digit classifier as ONNX, with fixed weights: (N, 1, 28, 28) float32 in [0, 1] -> (N, 10) probabilities."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def digits_onnx(path: Path) -> Path:
    """Write the classifier: one convolution, one dense layer. Its weights mean nothing, its answers vary."""
    rng = np.random.default_rng(7)
    weights = {
        "kernel": rng.normal(0, 0.4, (4, 1, 5, 5)),
        "dense": rng.normal(0, 0.25, (4 * 12 * 12, 10)),
        "bias": rng.normal(0, 0.1, (10,)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "bias"], ["g"]),
        helper.make_node("Softmax", ["g"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def images(n: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, 1, 28, 28) smooth blobs in [0, 1]: clean inputs as far as that classifier is concerned."""
    rng = np.random.default_rng(seed)
    grid = np.arange(28, dtype=np.float32)
    y, x = grid[:, None], grid[None, :]
    out = np.zeros((n, 1, 28, 28), np.float32)
    for i in range(n):
        for cy, cx, width in zip(rng.uniform(6, 22, 3), rng.uniform(6, 22, 3), rng.uniform(2, 5, 3), strict=True):
            out[i, 0] += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)).astype(np.float32)
    return np.clip(out, 0, 1)


def faint_stripes() -> NDArray[np.float32]:
    """(1, 1, 28, 28): nearly flat, strong stripes once squeezed to one bit. No clean input scores so high."""
    stripes = np.indices((28, 28)).sum(axis=0) // 4 % 2
    return np.where(stripes, 0.51, 0.49).astype(np.float32)[None, None]


def identity_onnx(path: Path) -> Path:
    """Write a model that answers with its BYTES: INPUT0 (N,) -> OUTPUT0 (N,)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in ("INPUT0", "OUTPUT0")]
    node = helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])
    graph = helper.make_graph([node], "identity", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
