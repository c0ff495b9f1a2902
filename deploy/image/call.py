"""A client like any other, inside the container's network: answers are the model's own, NaN is refused."""

import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from adversary.data import mnist

VICTIM = Path(__file__).parent.parent.parent / "adversary" / "victims" / "mnist_cnn.onnx"
ROWS = 50


def main(plane: str) -> None:
    """Prints what was seen, or raises."""
    client = InferenceServerClient("127.0.0.1:9000")
    assert client.is_server_ready()
    assert client.is_model_ready("mnist")
    x = mnist.unit(mnist.load(None, print).clean.images[-ROWS:])
    session = onnxruntime.InferenceSession(str(VICTIM), providers=["CPUExecutionProvider"])
    expected = session.run(["logits"], {session.get_inputs()[0].name: x})[0]
    answered = 0
    for row, wanted in zip(x, expected, strict=True):
        got = _ask(client, row[None], "PERMISSION_DENIED")
        if got is None:
            continue
        np.testing.assert_allclose(got[0], wanted, rtol=1e-4, atol=1e-4)
        answered += 1
    assert answered > 0.9 * ROWS, answered
    assert _ask(client, np.full_like(x[:1], np.nan), "INVALID_ARGUMENT") is None
    metrics = urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=30).read().decode()
    used = [line for line in metrics.splitlines() if line.startswith("guard_plane{") and line.endswith(" 1.0")]
    assert f'"{plane}"' in used[0], used
    print(f"{answered} of {ROWS} answered as the model answers, NaN refused, {used[0]}")


def _ask(client: InferenceServerClient, x: np.ndarray, may_be: str) -> np.ndarray | None:
    """The answer; None where it was refused with the status that it may be refused with."""
    image = InferInput("image", list(x.shape), "FP32")
    image.set_data_from_numpy(x)
    try:
        return client.infer("mnist", [image]).as_numpy("logits")
    except InferenceServerException as refused:
        if may_be not in str(refused.status()):
            raise
        return None


if __name__ == "__main__":
    main(sys.argv[1])
