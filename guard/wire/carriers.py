"""Which bytes of a message belong to which of its tensors: reading and replacing them, raw or typed.

Source: Open Inference Protocol; where raw contents stand for tensors in shared memory, what Triton does.
Answers: parser differentials: as many raw contents as tensors, no typed contents beside them, no name twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from guard.types import Array, InvalidQuery
from guard.wire import tensors
from guard.wire.contents import decode_contents, encode_contents, is_empty
from guard.wire.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from guard.wire.tensors import Buffer

B = TypeVar("B", bound=Buffer)
T = TypeVar("T")
Tensor = ModelInferRequest.InferInputTensor | ModelInferResponse.InferOutputTensor


@dataclass(frozen=True, slots=True, eq=False)
class Declared:
    """What a message says of a tensor. typed: it has contents of its own."""

    tensor: Tensor
    name: str
    datatype: str
    shape: tuple[int, ...]
    typed: bool


def declared(tensor: Tensor) -> Declared:
    """What is said of it, read once."""
    return Declared(tensor, tensor.name, tensor.datatype, tuple(tensor.shape), not is_empty(tensor.contents))


def in_shared_memory(tensor: Tensor) -> bool:
    """Whether a tensor of a request carries no data of its own."""
    return "shared_memory_region" in tensor.parameters


def carriers_of(message: ModelInferRequest | ModelInferResponse) -> list[Tensor]:
    """The tensors that raw contents belong to, in order: Triton leaves out inputs in shared memory, but no output."""
    if isinstance(message, ModelInferResponse):
        return list(message.outputs)
    return [tensor for tensor in message.inputs if not in_shared_memory(tensor)]


def check_names(names: list[str], what: str) -> None:
    """Raises InvalidQuery for a name given twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidQuery(f"{what} {tensors.show(name)} is given twice")
        seen.add(name)


def pair(carriers: Sequence[T], raw: Sequence[B], what: str) -> list[tuple[T, B | None]]:
    """Each tensor with its raw contents; None: it is typed. Raises InvalidQuery where their numbers differ."""
    if raw and len(raw) != len(carriers):
        raise InvalidQuery(f"{len(raw)} raw contents for {len(carriers)} {what}s")
    contents: Sequence[B | None] = raw or [None] * len(carriers)
    return list(zip(carriers, contents, strict=True))


def decode(pairs: Iterable[tuple[Declared, Buffer | None]], what: str, max_elements: int) -> dict[str, Array]:
    """Tensors by name. Raises InvalidQuery that names the tensor."""
    arrays = {}
    for tensor, raw in pairs:
        try:
            arrays[tensor.name] = _decode_one(tensor, raw, max_elements)
        except InvalidQuery as error:
            raise InvalidQuery(f"{what} {tensors.show(tensor.name)}: {error}") from None
    return arrays


def _decode_one(tensor: Declared, raw: Buffer | None, max_elements: int) -> Array:
    if raw is None:
        contents = tensor.tensor.contents
        return decode_contents(tensor.datatype, tensor.shape, contents, max_elements=max_elements)
    if tensor.typed:
        raise InvalidQuery("typed contents and raw contents exclude each other")
    return tensors.decode_array(tensor.datatype, tensor.shape, raw, max_elements=max_elements)


def find_carrier(message: ModelInferRequest | ModelInferResponse, name: str) -> tuple[int, Tensor]:
    """The tensor of this name, and its place among those with data. Raises ValueError where there is none."""
    for index, tensor in enumerate(carriers_of(message)):
        if tensor.name == name:
            return index, tensor
    raise ValueError(f"there is no tensor {tensors.show(name)} with data")


def replace(message: ModelInferRequest | ModelInferResponse, name: str, x: Array) -> None:
    """Put another array in a tensor's place, in its datatype and encoding. Raises ValueError where it does not fit."""
    index, tensor = find_carrier(message, name)
    raw = message.raw_input_contents if isinstance(message, ModelInferRequest) else message.raw_output_contents
    if raw:
        raw[index] = tensors.encode_array(x, tensor.datatype)
    else:
        tensor.contents.CopyFrom(encode_contents(x, tensor.datatype))
    tensor.shape[:] = x.shape
