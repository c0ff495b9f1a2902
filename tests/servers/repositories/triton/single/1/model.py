"""Serves model.onnx, which the fixture writes beside this file."""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self._answer(pb.get_input_tensor_by_name(request, "image").as_numpy()) for request in requests]

    def _answer(self, x):
        (probabilities,) = self.session.run(["probabilities"], {"image": x})
        return pb.InferenceResponse([pb.Tensor("probabilities", probabilities)])
