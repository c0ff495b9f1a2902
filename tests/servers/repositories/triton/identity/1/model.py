"""Answers with its input; the request parameter `delay_ms` makes it slow, `fail` makes it fail."""

import json
import time

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        parameters = json.loads(request.parameters() or "{}")
        time.sleep(parameters.get("delay_ms", 0) / 1000)
        if "fail" in parameters:
            return pb.InferenceResponse(error=pb.TritonError("asked to fail", pb.TritonError.INVALID_ARG))
        x = pb.get_input_tensor_by_name(request, "INPUT0").as_numpy()
        return pb.InferenceResponse([pb.Tensor("OUTPUT0", x)])
