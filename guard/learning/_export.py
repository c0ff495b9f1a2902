"""Torch modules to ONNX files, and back: the weights keep their names, and the file tells the plan it was made from."""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

Module = TypeVar("Module", bound=nn.Module)
_PLAN = "guard.plan"


def export(model: nn.Module, plan: dict[str, Any], outputs: Sequence[str]) -> bytes:
    """The model, which takes plan["shape"], as an ONNX file with a free batch axis; same weights, same bytes."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch about itself
        path = Path(directory) / "network.onnx"
        torch.onnx.export(
            model.eval(),
            (torch.zeros(2, *plan["shape"]),),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["x" if "x" not in outputs else "input"],  # a name is given once in a file
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("rows")},),
        )
        proto = onnx.load(path)
    _strip(proto)
    onnx.helper.set_model_props(proto, {_PLAN: json.dumps(plan, sort_keys=True)})
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def _strip(proto: Any) -> None:
    """Without traces of the machine that made it."""
    graph = proto.graph
    parts: list[Any] = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]


def plan_of(raw: bytes) -> dict[str, Any] | None:
    """What the network was made from; None where Guard did not make it."""
    for entry in onnx.load_from_string(raw).metadata_props:
        if entry.key == _PLAN:
            plan = json.loads(entry.value)
            return plan if isinstance(plan, dict) else None
    return None


def rebuilt(raw: bytes, build: Callable[[dict[str, Any]], Module]) -> Module:
    """The torch module whose weights the file holds. Raises ValueError where it is another network."""
    plan = plan_of(raw)
    if plan is None:
        raise ValueError("this network was not trained here: it tells no plan")
    model = build(plan)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(raw).graph.initializer}
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        # files of before tell a channel's mean without the axes of its plane
        if name not in weights or weights[name].squeeze().shape != tensor.squeeze().shape:
            raise ValueError(f"this network does not follow its plan: {name} {tuple(tensor.shape)} is missing")
    model.load_state_dict(
        {name: torch.from_numpy(np.array(weights[name])).reshape(wanted[name].shape) for name in wanted}
    )
    return model.eval()
