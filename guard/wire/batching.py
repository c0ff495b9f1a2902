"""How a served model takes rows, as far as its server says so.

Source: Triton's ModelConfig (max_batch_size, sequence_batching, model_transaction_policy); elsewhere the metadata,
        where a free first dimension of every input is the batch's.
Choices: Triton's max_batch_size 0 means that it does not batch, whatever the shapes: a first dimension that is free may
         then be anything, and rows of one call may depend on each other.
"""

from guard.types import Batching, ModelMetadata
from guard.wire.messages import InvalidAnswer, parse
from guard.wire.open_inference_pb2 import ModelConfigResponse


def of_config(body: bytes) -> Batching:
    """A ModelConfigResponse's. Raises InvalidAnswer."""
    config = parse(ModelConfigResponse, body, InvalidAnswer).config
    return Batching(
        max_rows=max(0, config.max_batch_size),
        stateful=config.HasField("sequence_batching"),
        decoupled=config.model_transaction_policy.decoupled,
    )


def of_metadata(metadata: ModelMetadata, limit: int | None = None) -> Batching:
    """What the inputs' shapes say; `limit`: rows of one call, where it is known otherwise."""
    free = bool(metadata.inputs) and all(spec.shape[:1] == (-1,) for spec in metadata.inputs)
    return Batching(limit if free else 0)
