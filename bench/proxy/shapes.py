"""Payloads: rows of an image in float32, as ModelInfer requests with raw contents; and a profile for each."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adversary import shelf
from adversary.attack import Array
from bench.monitors.ground import home
from bench.stages import inputs
from guard.fit_clean import Clean
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.profile import save_profile
from guard.proxy.ask import ServedModel
from guard.settings import Embedded
from guard.wire import open_inference_pb2 as pb

MODEL, INPUT, OUTPUT, CLASSES = "model", "image", "probabilities", 10
MONITORS = ("fingerprint", "similarity_graph", "update_direction", "low_confidence", "prada")
"""Those that `guard fit` calibrates without a network."""
_CLEAN, _LEARN = 600, 300


@dataclass(frozen=True, slots=True)
class Shape:
    """rows of side x side x channels; h2load's calls a round, of a proxy that is quick and of one that is not."""

    name: str
    side: int
    channels: int
    rows: int
    quick: int
    slow: int

    @property
    def dims(self) -> tuple[int, ...]:
        """Of a row."""
        return self.side, self.side, self.channels

    def images(self) -> Array:
        """(N, H, W, C) float32 in [0, 1], real ones. Raises DataUnavailable."""
        return _images(self.side, self.channels)

    def request(self, x: Array) -> bytes:
        """(N, H, W, C) -> a ModelInferRequest."""
        made = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[np.ascontiguousarray(x, "<f4").tobytes()])
        made.inputs.add(name=INPUT, datatype="FP32", shape=x.shape)
        return made.SerializeToString()

    def response(self) -> bytes:
        """What the upstream answers: the same to everything."""
        y = np.full((self.rows, CLASSES), 0.02, "<f4")
        y[:, 3] = 0.82
        made = pb.ModelInferResponse(model_name=MODEL, raw_output_contents=[y.tobytes()])
        made.outputs.add(name=OUTPUT, datatype="FP32", shape=y.shape)
        return made.SerializeToString()

    def metadata(self) -> bytes:
        """ModelMetadataResponse."""
        made = pb.ModelMetadataResponse(name=MODEL, versions=["1"], platform="onnxruntime_onnx")
        made.inputs.add(name=INPUT, datatype="FP32", shape=(-1, *self.dims))
        made.outputs.add(name=OUTPUT, datatype="FP32", shape=(-1, CLASSES))
        return made.SerializeToString()

    def profile(self) -> Path:
        """Fitted on the images with a model of this shape that means nothing; kept in the bench's home."""
        return _profile(self)


SHAPES = (
    Shape("3 KB", 28, 1, 1, 6000, 800),
    Shape("12 KB", 32, 3, 1, 5000, 800),
    Shape("150 KB", 112, 3, 1, 1200, 400),
    Shape("602 KB", 224, 3, 1, 400, 200),
    Shape("32 rows of 12 KB", 32, 3, 32, 500, 150),
)


@lru_cache(maxsize=4)
def _images(side: int, channels: int) -> Array:
    name = "28x28x1" if channels == 1 else "32x32x3" if side <= 32 else "224x224x3"
    found = inputs.SIZES[name](1)
    x = np.concatenate([found.clean, found.learn])
    while len(x) < _CLEAN + _LEARN:
        x = np.concatenate([x, x[:, :, ::-1], x[:, ::-1]])
    if x.shape[1] != side:
        x = np.stack([cv2.resize(row, (side, side), interpolation=cv2.INTER_AREA) for row in x])
    return np.ascontiguousarray(x, np.float32)


def _profile(shape: Shape) -> Path:
    x = shape.images()[: _CLEAN + _LEARN]
    directory = home() / "profiles" / f"proxy-{shelf.key(shape=shape.dims, images=shelf.digest(x), version=1)}"
    if (directory / "profile.json").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    file = _model(shape, directory / "model.onnx")
    wanted = (*(Wanted("monitor", name) for name in MONITORS),)
    options = Options(stages=wanted, learn=Clean(arrays={INPUT: x[:_LEARN]}), held_out=0.0)
    with ServedModel.embedded(Embedded(file=file, max_batch_rows=256), MODEL, batch=128) as model:
        made = fit(model, Clean(arrays={INPUT: x[_LEARN:]}), options)
    save_profile(made.profile, directory)
    return directory


def _model(shape: Shape, path: Path) -> Path:
    weights = np.random.default_rng(7).normal(0, 8.0, (shape.channels, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", [INPUT], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [OUTPUT], axis=1),
    ]
    graph = helper.make_graph(
        nodes, MODEL,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *shape.dims])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
