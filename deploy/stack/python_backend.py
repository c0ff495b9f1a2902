"""Serves model.onnx beside this file where Triton has no onnxruntime backend: `make stack` copies it to model.py."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """The one input and the one output of the file."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.input, self.output = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name

    def execute(self, requests: list[Any]) -> list[Any]:
        """All that wait, in one run."""
        xs = [pb.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        (y,) = self.session.run([self.output], {self.input: np.concatenate(xs)})
        parts = np.split(y, np.cumsum([len(x) for x in xs])[:-1])
        return [pb.InferenceResponse([pb.Tensor(self.output, part)]) for part in parts]
