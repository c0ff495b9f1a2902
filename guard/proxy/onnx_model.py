"""One ONNX file in onnxruntime: OIP's view of its inputs and outputs, and a run.

Choices: bfloat16 is refused (onnxruntime's Python API cannot read it), so is everything that is no tensor.
         CUDA is used where the session really got it; the list of "available" providers proves nothing.
Threads: `run` is called from several at once. Setting `terminate` on a run's options from elsewhere ends that run.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from guard.settings import ConfigError, Embedded
from guard.types import Array, InvalidQuery, ModelMetadata, TensorSpec
from guard.wire.tensors import show

VERSION = "1"
PLATFORM = "onnxruntime_onnx"
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_FATAL = 4  # onnxruntime's quietest log level

_DATATYPES: Mapping[str, str] = MappingProxyType(
    {
        "tensor(bool)": "BOOL",
        "tensor(int8)": "INT8",
        "tensor(int16)": "INT16",
        "tensor(int32)": "INT32",
        "tensor(int64)": "INT64",
        "tensor(uint8)": "UINT8",
        "tensor(uint16)": "UINT16",
        "tensor(uint32)": "UINT32",
        "tensor(uint64)": "UINT64",
        "tensor(float16)": "FP16",
        "tensor(float)": "FP32",
        "tensor(double)": "FP64",
        "tensor(string)": "BYTES",
    }
)


class OnnxModel:
    """A loaded model. `metadata` is what an OIP server would say of it."""

    def __init__(self, settings: Embedded, name: str) -> None:
        """Load the file. Raises ConfigError."""
        self._runtime = _runtime()
        self._session = _session(self._runtime, settings)
        self.metadata = ModelMetadata(
            name, (VERSION,), PLATFORM, _specs(self._session.get_inputs()), _specs(self._session.get_outputs())
        )

    @property
    def provider(self) -> str:
        """The execution provider really in use."""
        return str(self._session.get_providers()[0])

    def options(self) -> Any:
        """Options for one run; their `terminate` stops it."""
        options = self._runtime.RunOptions()
        options.log_severity_level = _FATAL
        return options

    def run(self, arrays: Mapping[str, Array], outputs: Sequence[str], options: Any) -> list[Array]:
        """Inputs by name -> the outputs named. Raises InvalidQuery for strings that are no text, else anything."""
        feeds = {name: _to_onnx(name, array) for name, array in arrays.items()}
        return [_from_onnx(array) for array in self._session.run(list(outputs), feeds, options)]


def _runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra, and not needed in front of a server
    except ImportError:
        raise ConfigError("embedded", "needs onnxruntime: install one of the extras cpu and gpu") from None
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime


def _session(runtime: Any, settings: Embedded) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings.threads, 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the proxy needs the CPUs, too
    providers = [name for name in (CUDA, CPU) if name in runtime.get_available_providers()]
    try:
        session = runtime.InferenceSession(str(settings.file), options, providers=providers)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        raise ConfigError("embedded.file", f"cannot load {settings.file}: {error}") from None
    if settings.require_gpu and session.get_providers()[0] != CUDA:
        raise ConfigError("embedded.require_gpu", f"onnxruntime uses {session.get_providers()[0]}, not {CUDA}")
    return session


def _specs(nodes: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """A session's inputs or outputs as OIP has them. Raises ConfigError for a type that cannot be served."""
    for node in nodes:
        if node.type not in _DATATYPES:
            raise ConfigError("embedded.file", f"{node.name} is a {node.type}, which cannot be served")
    return tuple(TensorSpec(node.name, _DATATYPES[node.type], _dims(node.shape)) for node in nodes)


def _dims(shape: Sequence[Any]) -> tuple[int, ...]:
    """Names and unknowns become -1."""
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape)


def _to_onnx(name: str, array: Array) -> Array:
    """BYTES -> str, which is what ONNX strings are."""
    if array.dtype != object:
        return array
    try:
        texts = [value.decode() for value in array.ravel()]
    except UnicodeDecodeError:
        raise InvalidQuery(f"input {show(name)} holds a string that is not UTF-8") from None
    return np.array(texts, dtype=object).reshape(array.shape)


def _from_onnx(array: Array) -> Array:
    if array.dtype != object:
        return array
    return np.array([text.encode() for text in array.ravel()], dtype=object).reshape(array.shape)
