"""How a model takes rows, read from what servers say; and the field numbers against Triton's own messages."""

import pytest
from tritonclient.grpc import service_pb2

from guard.types import Batching, ModelMetadata, TensorSpec
from guard.wire import batching
from guard.wire.messages import InvalidAnswer


def test_tritons_own_messages_are_read() -> None:
    """A configuration as Triton writes it, with fields that are not read."""
    theirs = service_pb2.ModelConfigResponse()
    theirs.config.name, theirs.config.platform, theirs.config.max_batch_size = "m", "onnxruntime_onnx", 32
    theirs.config.input.add(name="x", dims=[3, 8, 8])
    theirs.config.dynamic_batching.preferred_batch_size.append(8)
    assert batching.of_config(theirs.SerializeToString()) == Batching(32)
    theirs.config.model_transaction_policy.decoupled = True
    theirs.config.sequence_batching.max_sequence_idle_microseconds = 5
    assert batching.of_config(theirs.SerializeToString()) == Batching(32, stateful=True, decoupled=True)


def test_a_model_that_does_not_batch() -> None:
    assert batching.of_config(b"") == Batching(0)
    theirs = service_pb2.ModelConfigResponse()
    theirs.config.max_batch_size = -1
    assert batching.of_config(theirs.SerializeToString()) == Batching(0)


def test_what_is_no_configuration() -> None:
    with pytest.raises(InvalidAnswer, match="not a ModelConfigResponse"):
        batching.of_config(b"\xff")


@pytest.mark.parametrize(
    ("shapes", "limit", "expected"),
    [
        ([(-1, 4)], None, Batching()),
        ([(-1, 4), (-1,)], 7, Batching(7)),
        ([(-1, 4), (1, 4)], 7, Batching(0)),
        ([(4, 4)], None, Batching(0)),
        ([()], None, Batching(0)),
        ([], 7, Batching(0)),
    ],
)
def test_shapes_say_whether_a_model_batches(shapes: list, limit: int | None, expected: Batching) -> None:
    inputs = tuple(TensorSpec(str(i), "FP32", shape) for i, shape in enumerate(shapes))
    assert batching.of_metadata(ModelMetadata("m", (), "", inputs, ()), limit) == expected
