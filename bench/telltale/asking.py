"""What a client sees of each answer, and what the audit log says of the query."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from adversary import serving
from adversary.attack import Array
from bench.monitors.ground import softmax
from bench.telltale.worlds import Sending
from guard.proxy.status import DECISION_KEY
from guard.wire import open_inference_pb2 as pb

SEEN = (
    "answered", "seconds", "bytes of the message", "bytes of the text", "trailers", "bytes of the trailers",
    "largest probability", "second", "third", "entropy", "label",
)  # fmt: skip
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_SECRET = "a bench needs none that is secret"
LEAST = 0.01
"""A p-value below this speaks against a query: so many benign ones in a hundred have one."""
CLUSTER = "a cluster"


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """seen: (N, len(SEEN)) of a client. flagged: by stage, (N,) whether it spoke against the query; `any` for all."""

    seen: Array
    flagged: Mapping[str, Array]


def asked(settings: Mapping[str, Any], model: str, sending: Sending) -> Told:
    """Serve, ask one query after the other, and read the log."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        tree = {**settings, "audit": {"sample_allowed": 1.0}}
        with serving.served(tree, _SECRET, Path(directory)) as (address, audit):
            seen, ids = _ask(address, model, sending)
        events = _events(audit)
    rows = [events.get(name) for name in ids]
    names = sorted({stage for event in rows if event is not None for stage in _against(event)})
    flagged = {name: np.array([event is not None and name in _against(event) for event in rows]) for name in names}
    flagged["any"] = np.array([event is not None and bool(_against(event)) for event in rows])
    return Told(seen, flagged)


def _ask(address: str, model: str, sending: Sending) -> tuple[Array, list[str]]:
    """(N, len(SEEN)), and the decisions' ids."""
    rows, ids = [], []
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            _INFER,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=lambda body: body,
        )
        for x, account in zip(sending.x, sending.account, strict=True):
            message = pb.ModelInferRequest(model_name=model)
            message.inputs.add(name="image", datatype="FP32", shape=(1, *x.shape))
            message.raw_input_contents.append(np.ascontiguousarray(x, np.float32).tobytes())
            row, name = _one(infer, message, str(account))
            rows.append(row)
            ids.append(name)
    return np.array(rows, np.float64), ids


def _one(infer: Any, message: pb.ModelInferRequest, account: str) -> tuple[list[float], str]:
    started = time.perf_counter()
    try:
        body, call = infer.with_call(message, metadata=(("x-api-key", f"account-{account}"),), timeout=60)
        text = ""
    except grpc.RpcError as error:
        body, call, text = b"", error, error.details() or ""
    taken = time.perf_counter() - started
    trailers = tuple(call.trailing_metadata() or ())
    p = np.full(3, np.nan)
    entropy, label = np.nan, np.nan
    if body:
        logits = np.frombuffer(pb.ModelInferResponse.FromString(body).raw_output_contents[0], "<f4")
        every = softmax(logits[None])[0]
        p, label = np.sort(every)[::-1][:3], float(every.argmax())
        entropy = float(-(every * np.log(every + 1e-12)).sum())
    size = float(sum(len(key) + len(value) for key, value in trailers))
    row = [float(bool(body)), taken, float(len(body)), float(len(text)), float(len(trailers)), size]
    name = next((str(value) for key, value in trailers if key == DECISION_KEY), "")
    return [*row, *map(float, p), entropy, label], name


def _events(audit: Path) -> dict[str, Mapping[str, Any]]:
    with audit.open(encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    return {event["decision_id"]: event for event in events if event.get("event") == "guard.decision"}


def _against(event: Mapping[str, Any]) -> set[str]:
    """The stages that spoke against this very query: detectors that fired; monitors that credited it with evidence."""
    found = {one["stage"] for one in event["findings"] if one["kind"] == "detector" and one["fired"]}
    return found | {
        credit.get("monitor", CLUSTER)
        for credit in event.get("evidence", ())
        if min(credit["p_values"], default=1.0) < LEAST
    }
