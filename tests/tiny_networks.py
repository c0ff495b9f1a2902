"""Networks of a few weights in unit form, made with onnx.helper: what a profile's networks look like, without training.

Weights are random and seeded; the batch axis is free.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, EMBEDDING, CLASSES = 8, 4, 5


def model(nodes, inputs, outputs, constants=(), kind=TensorProto.FLOAT):
    """nodes, shapes by name of inputs and outputs, arrays by name -> the bytes of an ONNX file."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in dict(inputs).items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in dict(outputs).items()],
        [numpy_helper.from_array(array, name) for name, array in dict(constants).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def auxiliary(shape, classes=CLASSES, seed=0):
    """logits (N, classes), features (N, FEATURES) after ReLU, embedding (N, EMBEDDING) of length 1."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    constants = {
        "w1": (rng.normal(size=(size, FEATURES)) / np.sqrt(size)).astype(np.float32),
        "b1": np.full(FEATURES, 0.5, np.float32),
        "w2": rng.normal(size=(FEATURES, classes)).astype(np.float32),
        "w3": rng.normal(size=(FEATURES, EMBEDDING)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["hidden"]),
        helper.make_node("Add", ["hidden", "b1"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["features"]),
        helper.make_node("MatMul", ["features", "w2"], ["logits"]),
        helper.make_node("MatMul", ["features", "w3"], ["wide"]),
        helper.make_node("LpNormalization", ["wide"], ["embedding"], axis=1, p=2),
    ]
    outputs = {"logits": ["n", classes], "features": ["n", FEATURES], "embedding": ["n", EMBEDDING]}
    return model(nodes, {"x": ["n", *shape]}, outputs, constants)


def towards_grey(shape, share=0.25):
    """x of the same shape, each value moved a share of the way to one half: an autoencoder, or a denoiser.

    Its input is called `input`: in ONNX no two values share a name.
    """
    constants = {"keep": np.array(1 - share, np.float32), "grey": np.array(share / 2, np.float32)}
    nodes = [helper.make_node("Mul", ["input", "keep"], ["kept"]), helper.make_node("Add", ["kept", "grey"], ["x"])]
    return model(nodes, {"input": ["n", *shape]}, {"x": ["n", *shape]}, constants)
