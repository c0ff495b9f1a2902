import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ALLOW: _ClassVar[Action]
    ACTION_PURIFY: _ClassVar[Action]
    ACTION_DEGRADE: _ClassVar[Action]
    ACTION_DENY: _ClassVar[Action]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_OFF: _ClassVar[Mode]
    MODE_SHADOW: _ClassVar[Mode]
    MODE_ENFORCE: _ClassVar[Mode]
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_PURIFY: Action
ACTION_DEGRADE: Action
ACTION_DENY: Action
MODE_UNSPECIFIED: Mode
MODE_OFF: Mode
MODE_SHADOW: Mode
MODE_ENFORCE: Mode

class Tensor(_message.Message):
    __slots__ = ("name", "datatype", "shape", "raw")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    raw: bytes
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., raw: _Optional[bytes] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("stage", "mode", "scores", "p_values", "threshold", "fired", "error", "kind")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    P_VALUES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FIRED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    stage: str
    mode: Mode
    scores: _containers.RepeatedScalarFieldContainer[float]
    p_values: _containers.RepeatedScalarFieldContainer[float]
    threshold: float
    fired: bool
    error: str
    kind: str
    def __init__(self, stage: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., scores: _Optional[_Iterable[float]] = ..., p_values: _Optional[_Iterable[float]] = ..., threshold: _Optional[float] = ..., fired: _Optional[bool] = ..., error: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class InspectRequest(_message.Message):
    __slots__ = ("model", "caller", "input", "answer", "view_answers", "remember")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    VIEW_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    REMEMBER_FIELD_NUMBER: _ClassVar[int]
    model: str
    caller: str
    input: Tensor
    answer: Tensor
    view_answers: _containers.RepeatedCompositeFieldContainer[Tensor]
    remember: bool
    def __init__(self, model: _Optional[str] = ..., caller: _Optional[str] = ..., input: _Optional[_Union[Tensor, _Mapping]] = ..., answer: _Optional[_Union[Tensor, _Mapping]] = ..., view_answers: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., remember: _Optional[bool] = ...) -> None: ...

class InspectResponse(_message.Message):
    __slots__ = ("decision_id", "action", "findings", "purified", "answer", "views", "would_be", "view_rows")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    PURIFIED_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    WOULD_BE_FIELD_NUMBER: _ClassVar[int]
    VIEW_ROWS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    action: Action
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    purified: Tensor
    answer: Tensor
    views: _containers.RepeatedCompositeFieldContainer[Tensor]
    would_be: Action
    view_rows: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, decision_id: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., purified: _Optional[_Union[Tensor, _Mapping]] = ..., answer: _Optional[_Union[Tensor, _Mapping]] = ..., views: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., would_be: _Optional[_Union[Action, str]] = ..., view_rows: _Optional[_Iterable[int]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("model", "only_non_allowed")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ONLY_NON_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    model: str
    only_non_allowed: bool
    def __init__(self, model: _Optional[str] = ..., only_non_allowed: _Optional[bool] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("time", "decision_id", "model", "caller", "action", "would_be", "findings", "lost")
    TIME_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    WOULD_BE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    decision_id: str
    model: str
    caller: str
    action: Action
    would_be: Action
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    lost: int
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision_id: _Optional[str] = ..., model: _Optional[str] = ..., caller: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., would_be: _Optional[_Union[Action, str]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., lost: _Optional[int] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Drift(_message.Message):
    __slots__ = ("rows", "distance", "expected_rate", "observed_rate", "alarm")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_RATE_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_RATE_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    rows: int
    distance: float
    expected_rate: float
    observed_rate: float
    alarm: bool
    def __init__(self, rows: _Optional[int] = ..., distance: _Optional[float] = ..., expected_rate: _Optional[float] = ..., observed_rate: _Optional[float] = ..., alarm: _Optional[bool] = ...) -> None: ...

class StageStatus(_message.Message):
    __slots__ = ("name", "kind", "mode", "calibration_size", "threshold", "drift")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_SIZE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    mode: Mode
    calibration_size: int
    threshold: float
    drift: Drift
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., calibration_size: _Optional[int] = ..., threshold: _Optional[float] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("name", "upstream", "mode", "profile_digest", "ready", "reason", "false_positive_rate", "stages")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FALSE_POSITIVE_RATE_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    upstream: str
    mode: Mode
    profile_digest: str
    ready: bool
    reason: str
    false_positive_rate: float
    stages: _containers.RepeatedCompositeFieldContainer[StageStatus]
    def __init__(self, name: _Optional[str] = ..., upstream: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., profile_digest: _Optional[str] = ..., ready: _Optional[bool] = ..., reason: _Optional[str] = ..., false_positive_rate: _Optional[float] = ..., stages: _Optional[_Iterable[_Union[StageStatus, _Mapping]]] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("version", "config_digest", "started", "models")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    version: str
    config_digest: str
    started: _timestamp_pb2.Timestamp
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, version: _Optional[str] = ..., config_digest: _Optional[str] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...
