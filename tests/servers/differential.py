"""Random requests to Guard and to the bare server behind it: what is the same, and where Guard is stricter.

A request is a good one, changed in up to three ways. Of each pair of outcomes: where Guard answers, the server alone
answers the same, bit for bit; where the server's error came through, it is the server's own; where Guard refuses what
the server would have answered, the request has a trait for which docs/protocol.md says so, found here by reading the
request with tritonclient's messages, not with Guard's.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import triton_to_np_dtype

from tests.servers.calls import Outcome, digits, strings, unary
from tests.servers.conformance import Pair
from tests.servers.models import images

Rng = np.random.Generator
Change = Callable[[Rng, pb.ModelInferRequest], None]
MODELS = ("digits", "identity")
SHAPES = [[], [0], [-1], [1, 784], [2**31], [2**62, 4], [1, 1, 28, 28, 1], [1] * 17, [3, 1, 28, 28], [0, 1, 28, 28]]
DATATYPES = ["", "FP64", "FP16", "INT32", "UINT8", "BOOL", "BYTES", "fp32", "NONE", "FP32"]
VALUES = [np.nan, np.inf, -np.inf, 1e38, -1.0, 1e-42, -0.0, 255.0]


def good(rng: Rng) -> pb.ModelInferRequest:
    raw = bool(rng.random() < 0.6)
    if rng.random() < 0.75:
        return digits(images(int(rng.integers(1, 5)), seed=int(rng.integers(1000))), raw=raw)
    return strings([rng.bytes(int(rng.integers(12))).hex().encode() for _ in range(rng.integers(1, 4))], raw=raw)


# --- ways to change it


def shape(rng: Rng, request: pb.ModelInferRequest) -> None:
    request.inputs[0].shape[:] = SHAPES[rng.integers(len(SHAPES))]


def one_dimension(rng: Rng, request: pb.ModelInferRequest) -> None:
    if request.inputs[0].shape:
        at = int(rng.integers(len(request.inputs[0].shape)))
        request.inputs[0].shape[at] = int(rng.choice([0, 1, 2, 14, 28, 29, -1, 2**40]))


def datatype(rng: Rng, request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = str(rng.choice(DATATYPES))


def raw_length(rng: Rng, request: pb.ModelInferRequest) -> None:
    if request.raw_input_contents:
        body = request.raw_input_contents[0]
        request.raw_input_contents[0] = body[: -int(rng.integers(1, 9))] if rng.random() < 0.5 else body + b"\0" * 4


def raw_count(rng: Rng, request: pb.ModelInferRequest) -> None:
    if request.raw_input_contents and rng.random() < 0.5:
        del request.raw_input_contents[:]
    else:
        request.raw_input_contents.append(b"\0" * int(rng.integers(9)))


def typed_count(rng: Rng, request: pb.ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.5] * int(rng.integers(1, 4)))


def other_field(rng: Rng, request: pb.ModelInferRequest) -> None:
    contents = request.inputs[0].contents
    values = list(contents.fp32_contents) or [1.0]
    if rng.random() < 0.5:
        contents.Clear()
    if rng.random() < 0.5:
        contents.int_contents.extend(int(np.clip(np.nan_to_num(value), -9, 9)) for value in values)
    else:
        contents.fp64_contents.extend(values)


def value(rng: Rng, request: pb.ModelInferRequest) -> None:
    new = float(rng.choice(VALUES))
    contents = request.inputs[0].contents.fp32_contents
    if len(contents):
        contents[int(rng.integers(len(contents)))] = new
    elif request.raw_input_contents and request.inputs[0].datatype == "FP32":
        x = np.frombuffer(request.raw_input_contents[0][: len(request.raw_input_contents[0]) // 4 * 4], np.float32)
        if x.size:
            x = x.copy()
            x[rng.integers(x.size)] = new
            request.raw_input_contents[0] = x.tobytes()


def input_name(rng: Rng, request: pb.ModelInferRequest) -> None:
    request.inputs[0].name = str(rng.choice(["", "picture", "IMAGE", "image\n", "image"]))


def second_input(rng: Rng, request: pb.ModelInferRequest) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    if rng.random() < 0.5:
        request.inputs[-1].name = "other"
    if request.raw_input_contents:
        request.raw_input_contents.append(request.raw_input_contents[0])


def no_input(rng: Rng, request: pb.ModelInferRequest) -> None:
    del request.inputs[:]


def output(rng: Rng, request: pb.ModelInferRequest) -> None:
    known = "probabilities" if request.model_name == "digits" else "OUTPUT0"
    for _ in range(rng.integers(1, 3)):
        request.outputs.add(name=str(rng.choice([known, known, "", "nothing"])))


def classification(rng: Rng, request: pb.ModelInferRequest) -> None:
    wanted = request.outputs.add(name="probabilities" if rng.random() < 0.8 else "OUTPUT0")
    if rng.random() < 0.9:
        wanted.parameters["classification"].int64_param = int(rng.choice([1, 3, 10, 99, 0, -1, 2**31]))
    else:
        wanted.parameters["classification"].string_param = "3"


def shared_memory(rng: Rng, request: pb.ModelInferRequest) -> None:
    held = request.inputs[0].parameters if rng.random() < 0.5 else request.outputs.add(name="probabilities").parameters
    held["shared_memory_region"].string_param = "region"
    held["shared_memory_byte_size"].int64_param = 64


def parameters(rng: Rng, request: pb.ModelInferRequest) -> None:
    key = str(rng.choice(["priority", "timeout", "custom", "sequence_id", "binary_data_output", "triton_x"]))
    kind = rng.integers(3)
    if kind == 0:
        request.parameters[key].int64_param = int(rng.integers(0, 3))
    elif kind == 1:
        request.parameters[key].bool_param = True
    else:
        request.parameters[key].string_param = "a"


def model(rng: Rng, request: pb.ModelInferRequest) -> None:
    if rng.random() < 0.5:
        request.model_version = str(rng.choice(["1", "9", "x", "-1", "1 "]))
    else:
        request.model_name = str(rng.choice(["digits", "identity", "nobody", "", "Digits"]))


def name_of_the_call(rng: Rng, request: pb.ModelInferRequest) -> None:
    request.id = str(rng.choice(["", "x" * 300, "größer", "a\nb", "r1"]))


CHANGES: tuple[Change, ...] = (
    *(shape, one_dimension, datatype, raw_length, raw_count, typed_count, other_field, value, value, input_name),
    *(second_input, no_input, output, output, classification, shared_memory, parameters, parameters, model),
    name_of_the_call,
)


def _bytes(rng: Rng, body: bytes) -> bytes:
    """The same message in other bytes, or other bytes."""
    kind = rng.integers(4)
    if kind == 0:  # a field that nobody knows
        return body + b"\xaa\x7f\x03abc"
    if kind == 1:  # the last of a scalar counts
        return body + b"\x0a\x06digits"
    if kind == 2:
        return body[: int(rng.integers(len(body) + 1))]
    changed = bytearray(body)
    for _ in range(rng.integers(1, 4)):  # where the fields are: in front, or behind
        at = int(rng.integers(min(60, len(body))))
        changed[at if rng.random() < 0.7 else -at - 1] = int(rng.integers(256))
    return bytes(changed)


def requests(n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """n requests, each with what was done to it."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        request, done = good(rng), []
        for change in rng.choice(len(CHANGES), int(rng.choice([0, 1, 1, 1, 2, 3])), replace=False):
            if request.inputs or CHANGES[change] in {output, parameters, model, name_of_the_call}:
                CHANGES[change](rng, request)
                done.append(CHANGES[change].__name__)
        body = request.SerializeToString()
        if rng.random() < 0.15:
            body = _bytes(rng, body)
            done.append("bytes")
        if not _deadly(body):
            yield "+".join(done) or "good", body


def _deadly(body: bytes) -> bool:
    """Classes of a BYTES output end Triton 2.51's process: it cannot be asked a second time. Guard refuses them."""
    try:
        request = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return False
    return request.model_name == "identity" and any("classification" in x.parameters for x in request.outputs)


# --- what docs/protocol.md says of it


def stricter(body: bytes) -> str | None:
    """Why Guard may refuse what the server takes."""
    try:
        request = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return "not a message"
    typed = [tensor.HasField("contents") for tensor in request.inputs]
    names = [tensor.name for tensor in request.inputs]
    for why, true in (
        ("both encodings", bool(request.raw_input_contents) and any(typed)),
        ("given twice", len(set(names)) < len(names)),
        ("another count of raw contents", len(request.raw_input_contents) not in {0, len(names)}),
        ("shared memory", any(_asks(x, "shared_memory") for x in (*request.inputs, *request.outputs))),
        ("classification", any(_asks(x, "classification") for x in request.outputs)),
        ("dimensions", any(len(x.shape) > 16 or min(x.shape, default=0) < 0 for x in request.inputs)),
        ("another field", any(_other_field(x) for x in request.inputs)),
        ("not what the model takes", not _fits(request)),
        ("another length", any(_other_length(request, i) for i in range(len(names)))),
    ):
        if true:
            return why
    return None


def _fits(request: pb.ModelInferRequest) -> bool:
    """Whether inputs are what the metadata say."""
    name, datatype, form = ("image", "FP32", [1, 28, 28]) if request.model_name == "digits" else ("INPUT0", "BYTES", [])
    return all((x.name, x.datatype, list(x.shape[1:])) == (name, datatype, form) and x.shape for x in request.inputs)


def _asks(tensor: Any, key: str) -> bool:
    return any(name.startswith(key) for name in tensor.parameters)


def _other_field(tensor: pb.ModelInferRequest.InferInputTensor) -> bool:
    right = {"FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}
    given = {found.name for found, _ in tensor.contents.ListFields()}
    return bool(given - {right.get(tensor.datatype, "int_contents")})


def _other_length(request: pb.ModelInferRequest, i: int) -> bool:
    tensor = request.inputs[i]
    count = int(np.prod([float(n) for n in tensor.shape]))
    if not request.raw_input_contents:
        return sum(len(values) for _, values in tensor.contents.ListFields()) != count
    raw = request.raw_input_contents[i]
    if tensor.datatype != "BYTES":
        kind = triton_to_np_dtype(tensor.datatype)
        return kind is None or len(raw) != count * np.dtype(kind).itemsize
    found = at = 0
    while at + 4 <= len(raw):
        at, found = at + 4 + struct.unpack_from("<I", raw, at)[0], found + 1
    return (at, found) != (len(raw), count)


# --- the comparison


def own(outcome: Outcome) -> bool:
    """Whether it is a refusal of Guard's own."""
    for key, packed in outcome.trailing:
        if key == "grpc-status-details-bin" and isinstance(packed, bytes):
            info = error_details_pb2.ErrorInfo()
            details = status_pb2.Status.FromString(packed).details
            if any(detail.Unpack(info) and info.domain == "guard" for detail in details):
                return True
    return False


@dataclass
class Seen:
    """What came of the requests; `wrong` must be empty."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def compare(
    pair: Pair, n: int, seed: int, same: Callable[[bytes, bytes], bool] = bytes.__eq__, *, embedded: bool = False
) -> Seen:
    """n requests to both. same: whether two answers are one. embedded: Guard serves the model itself."""
    seen = Seen()
    for done, body in requests(n, seed):
        bare, guarded = unary(pair.bare, "ModelInfer", body), unary(pair.guarded, "ModelInfer", body)
        kind = _kind(bare, guarded, body, same, embedded)
        for _ in range(5):  # of two faults Triton names now one, now the other
            if not kind.startswith("wrong: another refusal"):
                break
            bare = unary(pair.bare, "ModelInfer", body)
            kind = _kind(bare, guarded, body, same, embedded)
        seen.counts[kind] += 1
        if kind.startswith("wrong"):
            seen.wrong.append(
                f"{kind}: {done}: bare {bare.code} {bare.details!r}, guarded {guarded.code} {guarded.details!r}"
            )
    return seen


def _kind(bare: Outcome, guarded: Outcome, body: bytes, same: Callable[[bytes, bytes], bool], embedded: bool) -> str:
    if guarded.code == "OK" == bare.code:
        return "answered alike" if same(bare.bodies[0], guarded.bodies[0]) else "wrong: another answer"
    if guarded.code == "OK":
        for_triton = embedded and "parameter" in bare.details
        return "laxer: a parameter of Triton's" if for_triton else "wrong: answered what the server refuses"
    if not (embedded or own(guarded)):
        return "the server's refusal" if guarded.seen == bare.seen else "wrong: another refusal than the server's"
    if bare.code != "OK":
        return "refused by both"
    why = stricter(body) or ("version" if embedded and guarded.code == "NOT_FOUND" else None)
    return f"stricter: {why}" if why else "wrong: refused what the server takes"
