"""ONNX networks that stages work with: the one place where a stage meets onnxruntime.

Choices: one thread that does not spin, because the proxy needs the CPUs, too; CUDA where onnxruntime really has it.
         Rows go in chunks, so that a huge batch takes no more memory than a large one.
Threads: a network may be called from several at once.
Once:    on an array that nobody can write to (a query's unit form), a network runs once, whoever asks: detectors and
         monitors share a pass. What it said is kept as long as the array lives, and cannot be written to either.
"""

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guard.types import Array

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CHUNK_ROWS = 256
_FATAL = 4  # onnxruntime's quietest log level
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")


class OnnxNetwork:
    """A loaded network with one float32 input whose first axis is rows.

    shape:   of the input without rows; -1 where it is free.
    outputs: (name, shape without rows, -1 where it is free) in the file's order.
    """

    def __init__(self, session: Any) -> None:
        """Check what the session takes and gives. Raises ValueError."""
        self._session = session
        (self._input, dims), self.outputs = _input(session), _outputs(session)
        self.shape = dims[1:]
        self._rows = dims[0]  # -1, or what the file fixes
        self._names = [name for name, _ in self.outputs]
        self._said: dict[int, tuple[weakref.ref[Array], Mapping[str, Array]]] = {}

    def __call__(self, x: Array) -> Mapping[str, Array]:
        """(N, ...) float32 -> the outputs by name, (N, ...) float32. Raises ValueError for another shape or dtype."""
        if x.dtype != np.float32:
            raise ValueError(f"the network takes float32, not {x.dtype}")
        if not _fits(x.shape[1:], self.shape):
            raise ValueError(f"the network takes rows of {_words(self.shape)}, not {_words(x.shape[1:])}")
        if x.flags.writeable:
            return self._all(x)
        said = self._said.get(id(x))
        return said[1] if said is not None and said[0]() is x else self._kept(x)

    def _kept(self, x: Array) -> Mapping[str, Array]:
        found, key = self._all(x), id(x)
        for y in found.values():
            y.flags.writeable = False
        self._said[key] = (weakref.ref(x, lambda _: self._said.pop(key, None)), found)
        return found

    def _all(self, x: Array) -> Mapping[str, Array]:
        size = CHUNK_ROWS if self._rows < 0 else self._rows
        chunks = [self._run(x[i : i + size]) for i in range(0, max(1, len(x)), size)]
        parts = chunks[0] if len(chunks) == 1 else map(np.concatenate, zip(*chunks, strict=True))
        return dict(zip(self._names, parts, strict=True))

    def _run(self, x: Array) -> list[Array]:
        """At most a chunk; filled up where the file fixes the number of rows, and where there are none."""
        wanted = max(1, len(x)) if self._rows < 0 else self._rows
        missing = wanted - len(x)
        rows = np.concatenate([x, np.zeros((missing, *x.shape[1:]), np.float32)]) if missing else x
        found = self._session.run(self._names, {self._input: np.ascontiguousarray(rows)})
        for name, y in zip(self._names, found, strict=True):
            if y.ndim == 0 or len(y) != wanted:
                raise ValueError(f"the network's output {name} has not one row an input")
        return [np.asarray(y[: len(x)], dtype=np.float32) for y in found]


def load(raw: bytes | Path) -> OnnxNetwork:
    """An ONNX file, or its bytes, ready to run. Raises ValueError, with words."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [name for name in (CUDA, CPU) if name in runtime.get_available_providers()]
    source = raw if isinstance(raw, bytes) else str(raw)
    try:
        session = runtime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        what = "the network" if isinstance(raw, bytes) else raw
        raise ValueError(f"cannot load {what}: {error}") from None
    return OnnxNetwork(session)


def _runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra, and needed only where a stage has a network
    except ImportError:
        raise ValueError("networks need onnxruntime: install one of the extras cpu and gpu") from None
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime


def _input(session: Any) -> tuple[str, tuple[int, ...]]:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ValueError(f"a network needs one input, not {len(inputs)}")
    (node,) = inputs
    if node.type != "tensor(float)" or not node.shape:
        raise ValueError(f"the network's input {node.name} must be float32 rows, not {node.type} {node.shape}")
    return str(node.name), _dims(node.shape)


def _outputs(session: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    for node in session.get_outputs():
        if node.type not in _FLOATS or not node.shape:
            raise ValueError(f"the network's output {node.name} must be rows of floats, not {node.type} {node.shape}")
    return tuple((str(node.name), _dims(node.shape)[1:]) for node in session.get_outputs())


def _dims(shape: Sequence[Any]) -> tuple[int, ...]:
    """Names and unknowns become -1."""
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, dim) for dim, want in zip(shape, wanted, strict=True))


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join("any" if dim < 0 else str(dim) for dim in shape) or "one value"
