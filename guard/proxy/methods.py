"""The method table: what is done with a call, by its full path. What is not on it is denied.

Source: Open Inference Protocol, Triton's and MLServer's supersets of it, grpc.health.v1.
Answers: control of the server through its inference port (repository, shared memory, trace and log settings), and
         paths that merely look like an inspected or harmless one: only the exact path of the exact service counts.
"""

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType

SERVICE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"
INFER = SERVICE + "ModelInfer"
STREAM_INFER = SERVICE + "ModelStreamInfer"
SERVER_LIVE = SERVICE + "ServerLive"
SERVER_READY = SERVICE + "ServerReady"
MODEL_READY = SERVICE + "ModelReady"
MODEL_METADATA = SERVICE + "ModelMetadata"
HEALTH_CHECK = HEALTH + "Check"
HEALTH_WATCH = HEALTH + "Watch"


class Treatment(Enum):
    """What is done with a call."""

    INSPECT = "inspect"
    INSPECT_STREAM = "inspect_stream"
    FORWARD = "forward"
    FORWARD_STREAM = "forward_stream"
    HEALTH = "health"
    DENY = "deny"


_PASSED = (
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
)
_DENIED = (
    *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    *("TraceSetting", "LogSettings"),
)
TABLE: Mapping[str, Treatment] = MappingProxyType(
    {
        INFER: Treatment.INSPECT,
        STREAM_INFER: Treatment.INSPECT_STREAM,
        HEALTH_CHECK: Treatment.HEALTH,
        HEALTH_WATCH: Treatment.HEALTH,
        **{SERVICE + name: Treatment.FORWARD for name in _PASSED},
        **{SERVICE + name: Treatment.DENY for name in _DENIED},
    }
)
NAMES_MODEL = frozenset(SERVICE + name for name in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"))
"""Passed methods whose request names a model in field 1."""
URGENT = frozenset({SERVER_LIVE, SERVER_READY, HEALTH_CHECK, HEALTH_WATCH})
"""What probes ask: never queued behind other calls, and answered without an identity."""
STREAMING = frozenset({STREAM_INFER, HEALTH_WATCH})


def treatment(path: str, allowed: tuple[str, ...]) -> Treatment:
    """What is done with this path; `allowed` are bare names of denied methods of the table, or full paths."""
    known = TABLE.get(path)
    if known is None:
        return Treatment.FORWARD_STREAM if path in allowed else Treatment.DENY
    if known is Treatment.DENY and (path in allowed or path.removeprefix(SERVICE) in allowed):
        return Treatment.FORWARD
    return known


def traced(path: str) -> str:
    """The method's name for spans: a closed list, too; OpenTelemetry's `_OTHER` for what is not on the table."""
    return path[1:] if path in TABLE else "_OTHER"


@lru_cache(maxsize=256)
def labels(path: str) -> tuple[str, str, str]:
    """grpc_type, grpc_service and grpc_method for metrics: a closed list, whatever callers ask for."""
    if path not in TABLE:
        return "unknown", "unknown", "unknown"
    service, _, method = path[1:].partition("/")
    kinds = {STREAM_INFER: "bidi_stream", HEALTH_WATCH: "server_stream"}
    return kinds.get(path, "unary"), service, method
