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
    ACTION_DELAY: _ClassVar[Action]
    ACTION_THROTTLE: _ClassVar[Action]
    ACTION_CHALLENGE: _ClassVar[Action]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_OFF: _ClassVar[Mode]
    MODE_SHADOW: _ClassVar[Mode]
    MODE_ENFORCE: _ClassVar[Mode]

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_UNSPECIFIED: _ClassVar[Level]
    LEVEL_CLEAR: _ClassVar[Level]
    LEVEL_WATCH: _ClassVar[Level]
    LEVEL_SUSPECT: _ClassVar[Level]
    LEVEL_HOSTILE: _ClassVar[Level]
ACTION_UNSPECIFIED: Action
ACTION_ALLOW: Action
ACTION_PURIFY: Action
ACTION_DEGRADE: Action
ACTION_DENY: Action
ACTION_DELAY: Action
ACTION_THROTTLE: Action
ACTION_CHALLENGE: Action
MODE_UNSPECIFIED: Mode
MODE_OFF: Mode
MODE_SHADOW: Mode
MODE_ENFORCE: Mode
LEVEL_UNSPECIFIED: Level
LEVEL_CLEAR: Level
LEVEL_WATCH: Level
LEVEL_SUSPECT: Level
LEVEL_HOSTILE: Level

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

class Evidence(_message.Message):
    __slots__ = ("monitor", "log_value", "count")
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    LOG_VALUE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    monitor: str
    log_value: float
    count: int
    def __init__(self, monitor: _Optional[str] = ..., log_value: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ("model", "caller", "level", "evidence", "rows", "since", "until", "seen")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    model: str
    caller: str
    level: Level
    evidence: _containers.RepeatedCompositeFieldContainer[Evidence]
    rows: int
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    seen: _timestamp_pb2.Timestamp
    def __init__(self, model: _Optional[str] = ..., caller: _Optional[str] = ..., level: _Optional[_Union[Level, str]] = ..., evidence: _Optional[_Iterable[_Union[Evidence, _Mapping]]] = ..., rows: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., seen: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListCallersRequest(_message.Message):
    __slots__ = ("model", "limit", "min_level")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MIN_LEVEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    min_level: Level
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ..., min_level: _Optional[_Union[Level, str]] = ...) -> None: ...

class ListCallersResponse(_message.Message):
    __slots__ = ("callers", "left_out")
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    callers: _containers.RepeatedCompositeFieldContainer[Caller]
    left_out: int
    def __init__(self, callers: _Optional[_Iterable[_Union[Caller, _Mapping]]] = ..., left_out: _Optional[int] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "decision_id", "caller", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    decision_id: str
    caller: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., decision_id: _Optional[str] = ..., caller: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Link(_message.Message):
    __slots__ = ("row", "number", "duplicate", "overlap", "neighbour", "owner", "distance", "unexplained", "cluster", "joined", "decision_id", "decision_row")
    ROW_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOUR_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    UNEXPLAINED_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    DECISION_ROW_FIELD_NUMBER: _ClassVar[int]
    row: int
    number: int
    duplicate: bool
    overlap: int
    neighbour: int
    owner: str
    distance: float
    unexplained: float
    cluster: int
    joined: bool
    decision_id: str
    decision_row: int
    def __init__(self, row: _Optional[int] = ..., number: _Optional[int] = ..., duplicate: _Optional[bool] = ..., overlap: _Optional[int] = ..., neighbour: _Optional[int] = ..., owner: _Optional[str] = ..., distance: _Optional[float] = ..., unexplained: _Optional[float] = ..., cluster: _Optional[int] = ..., joined: _Optional[bool] = ..., decision_id: _Optional[str] = ..., decision_row: _Optional[int] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("number", "rows", "owners")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    number: int
    rows: int
    owners: int
    def __init__(self, number: _Optional[int] = ..., rows: _Optional[int] = ..., owners: _Optional[int] = ...) -> None: ...

class ExplainedDecision(_message.Message):
    __slots__ = ("time", "decision_id", "model", "caller", "action", "would_be", "level", "former_level", "caller_rows", "monitor", "atlas_techniques", "findings", "links", "clusters")
    TIME_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    WOULD_BE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    FORMER_LEVEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_ROWS_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    ATLAS_TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    CLUSTERS_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    decision_id: str
    model: str
    caller: str
    action: Action
    would_be: Action
    level: Level
    former_level: Level
    caller_rows: int
    monitor: str
    atlas_techniques: _containers.RepeatedScalarFieldContainer[str]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    links: _containers.RepeatedCompositeFieldContainer[Link]
    clusters: _containers.RepeatedCompositeFieldContainer[Cluster]
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision_id: _Optional[str] = ..., model: _Optional[str] = ..., caller: _Optional[str] = ..., action: _Optional[_Union[Action, str]] = ..., would_be: _Optional[_Union[Action, str]] = ..., level: _Optional[_Union[Level, str]] = ..., former_level: _Optional[_Union[Level, str]] = ..., caller_rows: _Optional[int] = ..., monitor: _Optional[str] = ..., atlas_techniques: _Optional[_Iterable[str]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., links: _Optional[_Iterable[_Union[Link, _Mapping]]] = ..., clusters: _Optional[_Iterable[_Union[Cluster, _Mapping]]] = ...) -> None: ...

class Crossing(_message.Message):
    __slots__ = ("time", "decision_id", "model", "level", "caller_rows", "monitor", "atlas_technique")
    TIME_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_ROWS_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    ATLAS_TECHNIQUE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    decision_id: str
    model: str
    level: Level
    caller_rows: int
    monitor: str
    atlas_technique: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision_id: _Optional[str] = ..., model: _Optional[str] = ..., level: _Optional[_Union[Level, str]] = ..., caller_rows: _Optional[int] = ..., monitor: _Optional[str] = ..., atlas_technique: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("caller", "decisions", "crossings", "left_out", "callers")
    CALLER_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    CROSSINGS_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    caller: str
    decisions: _containers.RepeatedCompositeFieldContainer[ExplainedDecision]
    crossings: _containers.RepeatedCompositeFieldContainer[Crossing]
    left_out: int
    callers: _containers.RepeatedCompositeFieldContainer[Caller]
    def __init__(self, caller: _Optional[str] = ..., decisions: _Optional[_Iterable[_Union[ExplainedDecision, _Mapping]]] = ..., crossings: _Optional[_Iterable[_Union[Crossing, _Mapping]]] = ..., left_out: _Optional[int] = ..., callers: _Optional[_Iterable[_Union[Caller, _Mapping]]] = ...) -> None: ...

class ForgiveRequest(_message.Message):
    __slots__ = ("model", "caller")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    model: str
    caller: str
    def __init__(self, model: _Optional[str] = ..., caller: _Optional[str] = ...) -> None: ...

class ForgiveResponse(_message.Message):
    __slots__ = ("forgiven",)
    FORGIVEN_FIELD_NUMBER: _ClassVar[int]
    forgiven: bool
    def __init__(self, forgiven: _Optional[bool] = ...) -> None: ...
