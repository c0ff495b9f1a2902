"""A backbone: a network that the user brings and that gives features; only a linear head is fitted on them.

The head is a logistic regression on the served model's answers to clean inputs. Backbone and head become one file with
the outputs of any auxiliary.

Source:       linear probes, Alain, Bengio 2016, arXiv:1610.01644.
Answers:      the profile's network "auxiliary": `logits` (N, C), `features` (N, F), `embedding` (N, at most 64).
Known bypass: as for any auxiliary; a backbone that was not trained adversarially is fooled along with the served model
              by whoever has it.
Cost:         one pass of the backbone over the clean inputs, and seconds for the head.

The file takes `(rows, H, W, C)`, `(rows, C, H, W)` or `(rows, D)`, float32 in [0, 1], with a free number of rows: any
normalisation is inside it. Its output `features`, or its first one, is `(rows, F)`; further axes are flattened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from guard import networks
from guard.learning import Tell
from guard.learning._networks import EMBEDDING
from guard.learning._training import IMAGE_RANK, seeded, tensor
from guard.learning.auxiliary import answers
from guard.types import Array, Material

PENALTY = 1e-3  # on the squared weights of the head, over standardised features
ROUNDS = 100
_OLDEST_OPSET = 9
_CHUNK = 64
_BEFORE = "backbone/"


@dataclass(frozen=True, slots=True)
class Head:
    """logits = features @ weight + bias; embedding = (features - centre) @ directions, brought to length 1."""

    weight: Array
    bias: Array
    centre: Array
    directions: Array


def adopt(raw: bytes, material: Material, tell: Tell) -> bytes:
    """Backbone and head as one ONNX file. Raises ValueError where the file does not fit, or answers are missing."""
    probs, shape = answers(material), material.x.shape[1:]
    proto = _extended(raw, shape)
    features = _features(proto, material.x, tell)
    with seeded(material.seed):
        head = fit_head(features, probs)
    _attach(proto, head)
    onnx.checker.check_model(proto)
    return cast("bytes", proto.SerializeToString())


def _extended(raw: bytes, shape: Sequence[int]) -> Any:
    """The backbone, from `x` in unit form to `features` (N, F), under names of its own."""
    try:
        proto = onnx.load_from_string(raw)
        onnx.checker.check_model(proto)
    except Exception as error:  # noqa: BLE001 - protobuf's and onnx's errors share no base class
        raise ValueError(f"the backbone is not an ONNX file: {error}") from None
    if not any(entry.domain in {"", "ai.onnx"} and entry.version >= _OLDEST_OPSET for entry in proto.opset_import):
        raise ValueError(f"the backbone must use ONNX's operators of version {_OLDEST_OPSET} or later")
    proto = onnx.compose.add_prefix(proto, _BEFORE)
    graph, given = proto.graph, {tensor.name for tensor in proto.graph.initializer}
    inputs = [node for node in graph.input if node.name not in given]
    if len(inputs) != 1:
        raise ValueError(f"a backbone needs one input, not {len(inputs)}")
    turned = _turned(inputs[0], shape)
    enter = (
        helper.make_node("Transpose", ["x"], [inputs[0].name], perm=[0, 3, 1, 2])
        if turned
        else helper.make_node("Identity", ["x"], [inputs[0].name])
    )
    outputs = {node.name: node for node in graph.output}
    output = outputs.get(f"{_BEFORE}features", graph.output[0])
    leave = [
        helper.make_node("Flatten", [output.name], ["flat"], axis=1),
        helper.make_node("Cast", ["flat"], ["features"], to=TensorProto.FLOAT),
    ]
    nodes = [enter, *graph.node, *leave]
    for field, values in (("node", nodes), ("input", [_value("x", shape)]), ("output", [_value("features", [None])])):
        kept = [type(value).FromString(value.SerializeToString()) for value in values]
        del getattr(graph, field)[:]
        getattr(graph, field).extend(kept)
    return proto


def _turned(node: Any, shape: Sequence[int]) -> bool:
    """Whether the backbone takes channels first. Raises ValueError where it takes other rows."""
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in node.type.tensor_type.shape.dim]
    if not dims or dims[0] >= 0:
        raise ValueError(f"the backbone takes a fixed number of rows ({dims[:1]}): export it with a free first axis")
    first = (shape[-1], *shape[:-1])
    for turned, wanted in ((False, tuple(shape)), (len(shape) + 1 == IMAGE_RANK, first)):
        if len(dims) == len(wanted) + 1 and all(d in (-1, w) for d, w in zip(dims[1:], wanted, strict=True)):
            free_channels = len(shape) + 1 == IMAGE_RANK and not turned and dims[3] == -1
            if not (free_channels and dims[1] == shape[-1]):
                return turned
    raise ValueError(f"the backbone takes rows of {dims[1:]}; the inputs are {list(shape)}")


def _value(name: str, shape: Sequence[int | None]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape])


def _features(proto: Any, x: Array, tell: Tell) -> Array:
    """(N, F)."""
    network, parts = networks.load(proto.SerializeToString()), []
    for start in range(0, len(x), _CHUNK):
        tell("backbone", start, len(x))
        parts.append(network(np.ascontiguousarray(x[start : start + _CHUNK], np.float32))["features"])
    tell("backbone", len(x), len(x))
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise ValueError("the backbone gives NaN or infinite features for clean inputs")
    return features


def fit_head(features: Array, probs: Array) -> Head:
    """A logistic regression on soft labels over standardised features, and the features' main directions."""
    wide = features.astype(np.float64)
    centre, deviation = wide.mean(0), wide.std(0)
    deviation[deviation < 1e-6 * max(1.0, float(deviation.max()))] = (
        np.inf
    )  # a feature that does not vary tells nothing
    scaled, wanted = tensor((wide - centre) / deviation), tensor(probs)
    weight = torch.zeros(scaled.shape[1], probs.shape[1], requires_grad=True)
    bias = torch.zeros(probs.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(scaled @ weight + bias, wanted) + PENALTY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    unscaled = weight.detach().double().numpy() / deviation[:, None]
    _, _, directions = np.linalg.svd(scaled.numpy()[:5000].astype(np.float64), full_matrices=False)
    return Head(
        unscaled,
        bias.detach().double().numpy() - centre @ unscaled,
        centre,
        directions[:EMBEDDING].T / deviation[:, None],
    )


def _attach(proto: Any, head: Head) -> None:
    """Three outputs, by operators that every version of ONNX has."""
    size = head.directions.shape[1]
    constants = {
        "head.weight": head.weight,
        "head.bias": head.bias,
        "centre": head.centre,
        "directions": head.directions,
        "ones": np.ones((size, 1)),
        "tiny": np.array([1e-6]),
    }
    for name, values in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    proto.graph.node.extend(
        helper.make_node(operator, inputs, [output])
        for operator, inputs, output in (
            ("Gemm", ["features", "head.weight", "head.bias"], "logits"),
            ("Sub", ["features", "centre"], "centred"),
            ("MatMul", ["centred", "directions"], "projected"),
            ("Mul", ["projected", "projected"], "squares"),
            ("MatMul", ["squares", "ones"], "sum"),
            ("Sqrt", ["sum"], "root"),
            ("Max", ["root", "tiny"], "length"),
            ("Div", ["projected", "length"], "embedding"),
        )
    )
    del proto.graph.output[:]
    sizes = {"logits": head.weight.shape[1], "features": head.weight.shape[0], "embedding": size}
    proto.graph.output.extend(_value(name, [count]) for name, count in sizes.items())
