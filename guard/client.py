"""Typed client of Guard's own API: numpy arrays and frozen dataclasses, no protobuf.

    with GuardClient("127.0.0.1:9465", token) as guard:
        verdict = guard.inspect("mnist", x, caller="alice")

Where view detectors want the model's answers on `verdict.views`, ask the model and inspect again with `answer` and
`view_answers`. The token travels as it is: reach Guard over loopback, or bring `credentials`.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, cast

import grpc
import numpy as np

from guard.explaining import Caller, Crossing, Explained, Explanation, Known, Linked
from guard.proxy.status import Code
from guard.traces import Cluster, Trace
from guard.types import KINDS, Action, Array, Finding, Kind, Level, Mode
from guard.wire.guard.v1 import guard_pb2 as pb
from guard.wire.guard.v1 import guard_pb2_grpc
from guard.wire.tensors import datatype_of, decode_array, encode_array

_ACTIONS = {
    pb.ACTION_ALLOW: Action.ALLOW,
    pb.ACTION_PURIFY: Action.PURIFY,
    pb.ACTION_DEGRADE: Action.DEGRADE,
    pb.ACTION_DELAY: Action.DELAY,
    pb.ACTION_THROTTLE: Action.THROTTLE,
    pb.ACTION_CHALLENGE: Action.CHALLENGE,
    pb.ACTION_DENY: Action.DENY,
}
_MODES = {pb.MODE_OFF: Mode.OFF, pb.MODE_SHADOW: Mode.SHADOW, pb.MODE_ENFORCE: Mode.ENFORCE}

_LEVELS = {
    pb.LEVEL_CLEAR: Level.CLEAR,
    pb.LEVEL_WATCH: Level.WATCH,
    pb.LEVEL_SUSPECT: Level.SUSPECT,
    pb.LEVEL_HOSTILE: Level.HOSTILE,
}
_PB_LEVELS = {level: named for named, level in _LEVELS.items()}


class GuardError(RuntimeError):
    """A call that failed. `code`: gRPC's name of the status, such as `UNAVAILABLE`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class WrongToken(GuardError):
    """The token is not Guard's."""


class UnknownModel(GuardError):
    """Guard has no such model; or, of what is to be explained, it has kept nothing."""


class NoProfile(GuardError):
    """The model has no profile in use, so there is nothing to inspect with."""


class BadInput(GuardError):
    """The tensors are not what the model takes, or has answered."""


_ERRORS: dict[int, type[GuardError]] = {
    Code.UNAUTHENTICATED: WrongToken,
    Code.NOT_FOUND: UnknownModel,
    Code.FAILED_PRECONDITION: NoProfile,
    Code.INVALID_ARGUMENT: BadInput,
}


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What Guard says of an input.

    would_be:  what it would be if every stage enforced, for everyone.
    purified:  send this to the model instead; None: send what was inspected.
    answer:    give this instead of the model's answer; None: leave it, or no answer was brought.
    views:     further inputs on which view detectors want the model's answers; empty once these were brought.
    view_rows: the rows of the input that each view has; None: all.
    """

    decision_id: str
    action: Action
    would_be: Action
    findings: tuple[Finding, ...]
    purified: Array | None = None
    answer: Array | None = None
    views: tuple[Array, ...] = ()
    view_rows: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A decision as it was taken. `lost`: how many this reader has missed so far because it was slow."""

    time: dt.datetime
    decision_id: str
    model: str
    caller: str
    action: Action
    would_be: Action
    findings: tuple[Finding, ...]
    lost: int


@dataclass(frozen=True, slots=True)
class Drift:
    """The latest look at inputs beside the clean ones of the fit: how many, and whether they are more suspicious."""

    rows: int
    distance: float
    expected_rate: float
    observed_rate: float
    alarm: bool


@dataclass(frozen=True, slots=True)
class StageStatus:
    """A stage in use. `threshold`: its share of the false-positive budget, 0 where it does not score.

    drift: None where it is not watched, or has not seen enough.
    """

    name: str
    kind: Kind
    mode: Mode
    calibration_size: int
    threshold: float
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A guarded model. `reason`: why it is not ready, or why its profile is not in use."""

    name: str
    upstream: str
    mode: Mode
    profile_digest: str
    ready: bool
    reason: str
    false_positive_rate: float
    stages: tuple[StageStatus, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Guard as it runs."""

    version: str
    config_digest: str
    started: dt.datetime
    models: tuple[ModelStatus, ...]


class GuardClient:
    """One connection to a Guard's admin listener, HOST:PORT or unix:/PATH. Thread-safe; close it, or use `with`."""

    def __init__(
        self,
        address: str,
        token: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        options = (
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.enable_http_proxy", 0),
        )
        self._channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        self._stub: Any = guard_pb2_grpc.GuardServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, watches included."""
        self._channel.close()

    def inspect(
        self,
        model: str,
        x: Array,
        *,
        caller: str = "",
        answer: Array | None = None,
        view_answers: Sequence[Array] = (),
        remember: bool = False,
        datatype: str | None = None,
        timeout_s: float = 30.0,
    ) -> Verdict:
        """A verdict on x, in the model's own layout; nothing is forwarded. Raises GuardError.

        answer, view_answers: the model's answers to x and to an earlier verdict's views.
        remember:             count this query among the caller's.
        datatype:             the tensor's OIP name, where numpy's dtype does not tell it (BF16).
        """
        request = pb.InspectRequest(model=model, caller=caller, remember=remember, input=_tensor(x, datatype))
        if answer is not None:
            request.answer.CopyFrom(_tensor(answer))
        request.view_answers.extend(_tensor(view) for view in view_answers)
        with _typed_errors():
            response = self._stub.Inspect(request, timeout=timeout_s, metadata=self._metadata)
        return Verdict(
            decision_id=response.decision_id,
            action=_ACTIONS[response.action],
            would_be=_ACTIONS[response.would_be],
            findings=_findings(response.findings),
            purified=_array(response.purified) if response.HasField("purified") else None,
            answer=_array(response.answer) if response.HasField("answer") else None,
            views=tuple(_array(view) for view in response.views),
            view_rows=tuple(response.view_rows) or None,
        )

    def watch(self, model: str = "", *, only_non_allowed: bool = False) -> Iterator[Watched]:
        """Decisions from now on, of one model or of all; subscribed when this returns. Raises GuardError.

        Ends when Guard stops. To stop earlier, close the iterator (`contextlib.closing`) or the client.
        """
        request = pb.WatchRequest(model=model, only_non_allowed=only_non_allowed)
        call = self._stub.Watch(request, metadata=self._metadata)
        with _typed_errors():
            call.initial_metadata()  # sent once subscribed
            if call.done() and call.code() is not grpc.StatusCode.OK:
                next(call)  # raises
        return _watched(call)

    def status(self, *, timeout_s: float = 10.0) -> Status:
        """Models, profiles, stages and modes. Raises GuardError."""
        with _typed_errors():
            response = self._stub.Status(pb.StatusRequest(), timeout=timeout_s, metadata=self._metadata)
        started = response.started.ToDatetime(dt.UTC)
        models = tuple(_model(model) for model in response.models)
        return Status(response.version, response.config_digest, started, models)

    def callers(
        self, model: str = "", *, limit: int = 100, min_level: Level = Level.CLEAR, timeout_s: float = 30.0
    ) -> tuple[Caller, ...]:
        """Callers with evidence against them, of one model or of all, the most alarming first. Raises GuardError."""
        request = pb.ListCallersRequest(model=model, limit=limit, min_level=_PB_LEVELS[min_level])
        with _typed_errors():
            response = self._stub.ListCallers(request, timeout=timeout_s, metadata=self._metadata)
        return tuple(map(_caller, response.callers))

    def explain(
        self, *, decision_id: str = "", caller: str = "", model: str = "", limit: int = 20, timeout_s: float = 30.0
    ) -> Explanation:
        """Why a decision was taken, or what a caller's latest decisions were about. Raises GuardError.

        From the memory of the Guard that is asked, all its workers together.
        """
        subject: dict[str, Any] = {"decision_id": decision_id} if decision_id else {"caller": caller}
        request = pb.ExplainRequest(model=model, limit=limit, **subject)
        with _typed_errors():
            response = self._stub.Explain(request, timeout=timeout_s, metadata=self._metadata)
        return Explanation(
            caller=response.caller,
            decisions=tuple(map(_explained, response.decisions)),
            crossings=tuple(map(_crossing, response.crossings)),
            left_out=response.left_out,
            state=tuple(map(_caller, response.callers)),
        )

    def forgive(self, model: str, caller: str, *, timeout_s: float = 10.0) -> bool:
        """The caller's evidence, alert and recent rows go; whether there were any. Raises GuardError."""
        with _typed_errors():
            response = self._stub.Forgive(
                pb.ForgiveRequest(model=model, caller=caller), timeout=timeout_s, metadata=self._metadata
            )
        return bool(response.forgiven)


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        status = cast("grpc.Call", error)
        number, _ = status.code().value
        raise _ERRORS.get(number, GuardError)(status.code().name, status.details() or "") from None


def _watched(call: Any) -> Iterator[Watched]:
    try:
        with _typed_errors():
            for message in call:
                yield Watched(
                    time=message.time.ToDatetime(dt.UTC),
                    decision_id=message.decision_id,
                    model=message.model,
                    caller=message.caller,
                    action=_ACTIONS[message.action],
                    would_be=_ACTIONS[message.would_be],
                    findings=_findings(message.findings),
                    lost=message.lost,
                )
    finally:
        call.cancel()


def _tensor(array: Array, datatype: str | None = None) -> pb.Tensor:
    array = np.asarray(array)
    name = datatype or datatype_of(array.dtype)
    return pb.Tensor(datatype=name, shape=array.shape, raw=encode_array(array, name))


def _array(tensor: pb.Tensor) -> Array:
    return decode_array(tensor.datatype, tuple(tensor.shape), tensor.raw)


def _findings(messages: Sequence[pb.Finding]) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            stage=message.stage,
            kind=_kind(message.kind),
            mode=_MODES[message.mode],
            scores=tuple(message.scores),
            p_values=tuple(message.p_values),
            threshold=message.threshold,
            error=message.error or None,
        )
        for message in messages
    )


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind == name)


def _model(message: pb.ModelStatus) -> ModelStatus:
    return ModelStatus(
        name=message.name,
        upstream=message.upstream,
        mode=_MODES[message.mode],
        profile_digest=message.profile_digest,
        ready=message.ready,
        reason=message.reason,
        false_positive_rate=message.false_positive_rate,
        stages=tuple(map(_stage, message.stages)),
    )


def _stage(message: pb.StageStatus) -> StageStatus:
    seen = message.drift
    drift = Drift(seen.rows, seen.distance, seen.expected_rate, seen.observed_rate, seen.alarm)
    return StageStatus(
        name=message.name,
        kind=_kind(message.kind),
        mode=_MODES[message.mode],
        calibration_size=message.calibration_size,
        threshold=message.threshold,
        drift=drift if message.HasField("drift") else None,
    )


def _caller(message: pb.Caller) -> Caller:
    return Caller(
        model=message.model,
        caller=message.caller,
        level=_LEVELS[message.level],
        evidence=tuple(Known(known.monitor, known.log_value, known.count) for known in message.evidence),
        rows=message.rows,
        since=message.since.ToDatetime(dt.UTC),
        until=message.until.ToDatetime(dt.UTC) if message.HasField("until") else None,
        seen=message.seen.ToDatetime(dt.UTC) if message.HasField("seen") else None,
    )


def _explained(message: pb.ExplainedDecision) -> Explained:
    return Explained(
        time=message.time.ToDatetime(dt.UTC),
        decision_id=message.decision_id,
        model=message.model,
        caller=message.caller,
        action=_ACTIONS[message.action],
        would_be=_ACTIONS[message.would_be],
        level=_LEVELS[message.level],
        former=_LEVELS[message.former_level],
        caller_rows=message.caller_rows,
        monitor=message.monitor,
        techniques=tuple(message.atlas_techniques),
        findings=_findings(message.findings),
        links=tuple(map(_linked, message.links)),
        clusters=tuple(Cluster(c.number, c.rows, c.owners) for c in message.clusters),
    )


def _linked(message: pb.Link) -> Linked:
    trace = Trace(message.row, message.number, message.duplicate, overlap=message.overlap)
    if not message.HasField("neighbour"):
        return Linked(trace)
    trace = replace(
        trace,
        neighbour=message.neighbour,
        owner=message.owner,
        distance=message.distance,
        unexplained=message.unexplained,
        cluster=message.cluster,
        joined=message.joined,
    )
    return Linked(trace, message.decision_id, message.decision_row)


def _crossing(message: pb.Crossing) -> Crossing:
    return Crossing(
        time=message.time.ToDatetime(dt.UTC),
        decision_id=message.decision_id,
        model=message.model,
        level=_LEVELS[message.level],
        caller_rows=message.caller_rows,
        monitor=message.monitor,
        technique=message.atlas_technique,
    )
