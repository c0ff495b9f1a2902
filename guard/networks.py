"""ONNX networks that stages work with: the one place where a stage meets onnxruntime.

Choices: one thread that does not spin, because the proxy needs the CPUs, too; CUDA where onnxruntime really has it.
         Rows go in chunks, so that a huge batch takes no more memory than a large one.
Threads: a network may be called from several at once.
Once:    on an array that nobody can write to (a query's unit form, or a view of it), a network runs once, whoever asks:
         stages share a pass, and know nothing of each other. What it said is kept as long as the array lives, and
         cannot be written to either. A file is loaded once in a process, by its digest, as long as somebody uses it.
Batches: rows of concurrent calls go in one run (`guard.batching`) where that is asked for, the file leaves the number
         of rows free or fixes more than one, and rows do not change each other's outputs, which is tried when loading.
"""

import hashlib
import logging
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from guard.batching import Gatherer, Gathering
from guard.types import Array

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CHUNK_ROWS = 256
ALONE = Gathering()
_SIDE = 32  # of what is free, where rows are tried
_ALIKE = 0.01  # of the largest output: a GPU takes other ways for other numbers of rows
_FATAL = 4  # onnxruntime's quietest log level
_FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_ELSEWHERE = b"location"  # the key under which a file names another one that has its weights

_Place = tuple[int, int, tuple[int, ...], tuple[int, ...]]
"""Of an array: who owns its memory, and what of that it is."""

_log = logging.getLogger(__name__)
_sessions: "weakref.WeakValueDictionary[bytes, Any]" = weakref.WeakValueDictionary()
_loading = threading.Lock()


class OnnxNetwork:
    """A loaded network with one float32 input whose first axis is rows.

    shape:   of the input without rows; -1 where it is free.
    outputs: (name, shape without rows, -1 where it is free) in the file's order.
    """

    def __init__(self, session: Any, gathering: Gathering = ALONE, name: str = "") -> None:
        """Check what the session takes and gives. Raises ValueError.

        name: by which it is counted.
        """
        self._session = session
        (self._input, dims), self.outputs = _input(session), _outputs(session)
        self.shape = dims[1:]
        self._rows = dims[0]  # -1, or what the file fixes
        self._names = [name for name, _ in self.outputs]
        self._said: dict[_Place, tuple[weakref.ref[Array], Mapping[str, Array]]] = {}
        self._gatherer = self._gathering(gathering, name)

    def _gathering(self, how: Gathering, name: str) -> Gatherer | None:
        """What has chunks run with rows of other calls, where that is asked for and can be."""
        on_gpu = self._session.get_providers()[0] == CUDA
        asked = how.where == "everywhere" or (how.where == "gpu" and on_gpu)
        most = min(how.max_rows, CHUNK_ROWS if self._rows < 0 else self._rows)
        if not asked or most == 1:
            return None
        if self._mixes_rows():
            _log.warning("network %s: its calls are not batched, for rows change each other's outputs", name)
            how.on_alone(name, "mixes_rows")
            return None
        return Gatherer(how, name, max_rows=most, turns=1 if on_gpu else os.cpu_count() or 1)

    def _mixes_rows(self) -> bool:
        """Whether a row's outputs are others beside other rows; True, too, where it cannot be tried."""
        shape = tuple(_SIDE if dim < 0 else dim for dim in self.shape)
        rows = np.random.default_rng(0).random((3, *shape), dtype=np.float32)
        rows[2] = 1.0 - rows[0]
        try:
            alone = [self._run(row[None]) for row in rows]
            beside = {pair: self._run(rows[list(pair)]) for pair in ((0, 1), (2, 0))}
        except Exception:  # noqa: BLE001 - onnxruntime's errors share no base class
            return True
        return not all(
            _alike(y, np.concatenate([alone[i][k] for i in pair]))
            for pair, found in beside.items()
            for k, y in enumerate(found)
        )

    def __call__(self, x: Array) -> Mapping[str, Array]:
        """(N, ...) float32 -> the outputs by name, (N, ...) float32. Raises ValueError for another shape or dtype."""
        if x.dtype != np.float32:
            raise ValueError(f"the network takes float32, not {x.dtype}")
        if not _fits(x.shape[1:], self.shape):
            raise ValueError(f"the network takes rows of {_words(self.shape)}, not {_words(x.shape[1:])}")
        owner = x.base if isinstance(x.base, np.ndarray) else x
        if x.flags.writeable or owner.flags.writeable:
            return self._all(x)
        place = (id(owner), x.__array_interface__["data"][0], x.shape, x.strides)
        said = self._said.get(place)
        return said[1] if said is not None and said[0]() is owner else self._kept(x, owner, place)

    def _kept(self, x: Array, owner: Array, place: "_Place") -> Mapping[str, Array]:
        found = self._all(x)
        for y in found.values():
            y.flags.writeable = False
        self._said[place] = (weakref.ref(owner, lambda _: self._said.pop(place, None)), found)
        return found

    def _all(self, x: Array) -> Mapping[str, Array]:
        size = CHUNK_ROWS if self._rows < 0 else self._rows
        run = self._run if self._gatherer is None else partial(self._gatherer, self._run)
        chunks = [run(x[i : i + size]) for i in range(0, max(1, len(x)), size)]
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


class Networks:
    """Those that a proxy's stages work with: the same file is the same network, so that whoever asks shares a pass."""

    def __init__(self, gathering: Gathering = ALONE) -> None:
        self._gathering = gathering
        self._known: dict[bytes, OnnxNetwork] = {}

    def load(self, raw: bytes | Path, name: str = "file") -> OnnxNetwork:
        """An ONNX file, or its bytes, ready to run. Raises ValueError, with words.

        name: by which it is counted; of a file under two names, the first.
        """
        session, digest = _opened(raw)
        known = self._known.get(digest)
        if known is None:
            known = OnnxNetwork(session, self._gathering, name)
            if digest:
                self._known[digest] = known
        return known


def load(raw: bytes | Path) -> OnnxNetwork:
    """An ONNX file, or its bytes, ready to run, for one user. Raises ValueError, with words."""
    return Networks().load(raw)


def _opened(raw: bytes | Path) -> tuple[Any, bytes]:
    """A session, and the digest of its file; empty where the file may not be all there is. Raises ValueError."""
    runtime, file = _runtime(), _read(raw)
    if file is None or _ELSEWHERE in file:
        return _session(runtime, raw, raw), b""
    digest = hashlib.sha256(file).digest()
    with _loading:
        session = _sessions.get(digest)
        if session is None:
            session = _sessions[digest] = _session(runtime, file, raw)
    return session, digest


def _read(raw: bytes | Path) -> bytes | None:
    """None where it cannot be: onnxruntime says why."""
    try:
        return raw if isinstance(raw, bytes) else raw.read_bytes()
    except OSError:
        return None


def _session(runtime: Any, source: bytes | Path, raw: bytes | Path) -> Any:
    """source: what is loaded; raw: what was asked for, in an error's words."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [name for name in (CUDA, CPU) if name in runtime.get_available_providers()]
    try:
        return runtime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=providers
        )
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        what = "the network" if isinstance(raw, bytes) else raw
        raise ValueError(f"cannot load {what}: {error}") from None


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


def _alike(y: Array, expected: Array) -> bool:
    return bool(np.abs(y - expected).max(initial=0.0) <= _ALIKE * np.abs(expected).max(initial=0.0))


def _dims(shape: Sequence[Any]) -> tuple[int, ...]:
    """Names and unknowns become -1."""
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, dim) for dim, want in zip(shape, wanted, strict=True))


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join("any" if dim < 0 else str(dim) for dim in shape) or "one value"
