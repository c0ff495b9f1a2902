"""Triton's classification extension: the largest scores of an output as strings `score:index` or `score:index:label`.

Source:  Triton's protocol extension "classification"; forms as Triton 2.51 answers: (N, K) BYTES, (K,) of a model that
         does not batch, largest first, scores with six decimals, K at most the number of classes. Of FP16 and BF16
         outputs it makes no classes and answers with an error.
Answers: answers in a form that no protection reads. Guard asks for all classes, whose scores can be read back, and
         hands on as many as the caller asked for. A label stays with its index.
Choices: K is an INT64 from 1 to 2**31 - 1, and the output is asked for once: of other numbers and of an output given
         twice Triton's reading is its own.
Cost:    a string a class and row, whatever the caller asked for.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from guard.types import Array
from guard.wire import tensors
from guard.wire.carriers import replace as replace_tensor
from guard.wire.messages import Inference, InvalidAnswer, parse_answer
from guard.wire.open_inference_pb2 import InferParameter, ModelInferRequest

PARAMETER = "classification"
MOST = 2**31 - 1
_PARTS = 2  # score and index; a label may hold colons


def widen(inference: Inference, name: str, classes: int) -> Inference:
    """The request with all classes of this output asked for, `classes` set to how many its caller asked for.

    As it is where it does not ask for classes of this output, of another one as well, or in another form.
    """
    message = inference.message
    if not message.outputs:
        return inference
    asked = [output for output in message.outputs if output.name == name]
    carriers = [message.parameters, *(t.parameters for t in message.inputs), *(t.parameters for t in message.outputs)]
    if len(asked) != 1 or PARAMETER not in asked[0].parameters or sum(PARAMETER in c for c in carriers) != 1:
        return inference
    parameter = asked[0].parameters[PARAMETER]
    count = parameter.int64_param
    if parameter.WhichOneof("parameter_choice") != "int64_param" or not 1 <= count <= MOST:
        return inference
    if count >= classes:
        return replace(inference, classes=count)
    wide = ModelInferRequest.FromString(inference.body)
    _parameter(wide, name).int64_param = classes
    body = wide.SerializeToString()
    wide.ClearField("raw_input_contents")
    head = replace(inference.head, message=wide, rest=None)
    return replace(inference, head=head, body=body, classes=count, came=inference.body)


def narrow(body: bytes, name: str, count: int) -> bytes:
    """The request with so many classes of this output asked for."""
    message = ModelInferRequest.FromString(body)
    _parameter(message, name).int64_param = count
    return message.SerializeToString()


def _parameter(message: ModelInferRequest, name: str) -> InferParameter:
    return next(output for output in message.outputs if output.name == name).parameters[PARAMETER]


def read(strings: Array, classes: int, datatype: str) -> Array | None:
    """(N, C) or (C,) strings of all classes -> (N, C) scores by index, in the output's dtype; None: they are not."""
    table = _table(strings, classes)
    dtype = tensors.dtype_of(datatype)
    if table is None or dtype.kind not in "iuf":
        return None
    scores = np.empty(table.shape, dtype)
    try:
        for row, entries in enumerate(table.tolist()):
            order = [_index(entry) for entry in entries]
            if sorted(order) != list(range(classes)):
                return None
            scores[row, order] = [dtype.type(entry.split(b":", 1)[0].decode()) for entry in entries]
    except (ValueError, OverflowError):  # a score or an index that is no number
        return None
    return scores


def _table(strings: Array, classes: int) -> Array | None:
    """(N, C) of (N, C) or (C,) strings; None where there are not so many."""
    if strings.dtype != object or strings.ndim not in {1, 2} or strings.shape[-1] != classes:
        return None
    return strings.reshape(-1, classes)


def _index(entry: bytes) -> int:
    """Raises ValueError where there is none."""
    index = entry.split(b":", _PARTS)[1:_PARTS]
    if not index or not index[0].isdigit():
        raise ValueError("no class")
    return int(index[0])


def write(body: bytes, name: str, y: Array, datatype: str) -> bytes:
    """The response with other scores, (N, C) in the output's dtype, for all classes of an output.

    Rows whose scores are what they were keep their strings and their order; others are ordered by score, the first of
    equals first. Raises InvalidAnswer where the response cannot be read, ValueError where `y` does not fit.
    """
    message, outputs = parse_answer(body)
    strings, classes = outputs[name], y.shape[1]
    before, table = read(strings, classes, datatype), _table(strings, classes)
    if before is None or table is None or before.shape != y.shape:
        raise ValueError("the scores do not fit")
    made = np.array(table)
    y = y.astype(before.dtype)
    for row in np.flatnonzero((y != before).any(axis=1)):
        named = {_index(entry): entry.split(b":", 1)[1] for entry in table[row]}  # index, and label where there is one
        made[row] = _ranked(y[row], named)
    replace_tensor(message, name, made.reshape(strings.shape))
    return message.SerializeToString()


def _ranked(scores: Array, named: Mapping[int, bytes]) -> list[bytes]:
    """(C,) scores -> strings, the largest first."""
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    whole = scores.dtype.kind in "iu"
    return [
        (str(scores[i]) if whole else f"{float(scores[i]):.6f}").encode() + b":" + named[i] for i in map(int, order)
    ]


def cut(body: bytes, name: str, count: int, *, classes: int, datatype: str, rows: int | None) -> bytes:
    """The response with the first `count` classes of each row of an output; as it is where that holds no strings.

    rows: how many there must be; None: any. Raises InvalidAnswer where it holds strings that are not all classes.
    """
    message, outputs = parse_answer(body)
    strings = outputs.get(name)
    if strings is None or strings.dtype != object:
        return body
    scores = read(strings, classes, datatype)
    if scores is None or rows not in {None, len(scores)}:
        raise InvalidAnswer("the output is not in classes")
    if count >= classes:
        return body
    replace_tensor(message, name, strings[..., :count])
    return message.SerializeToString()
