"""Decoupled: one answer for each element of the input."""

import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for value in pb.get_input_tensor_by_name(request, "IN").as_numpy():
                sender.send(pb.InferenceResponse([pb.Tensor("OUT", value.reshape(1))]))
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
