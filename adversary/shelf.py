"""Where a campaign's results lie: one directory, a JSON and an .npz file a unit of work, written whole or not at all.

A unit's file is named by a digest of all that determines its outcome. What is there under that name is not done again:
so a run that was killed goes on where it was, and a changed campaign keeps what its change does not touch.
"""

import fcntl
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data.cache import write_atomic

Arrays = Mapping[str, Array]


class Busy(RuntimeError):
    """Another run writes into this directory."""


def digest(x: Array) -> str:
    """SHA-256 of an array: its type, shape and bytes."""
    x = np.ascontiguousarray(x)
    return hashlib.sha256(f"{x.dtype.str}{x.shape}".encode() + x.tobytes()).hexdigest()


def key(**parts: Any) -> str:
    """A short name for what these parts make."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Shelf:
    """One directory of results; `with open_shelf(directory) as shelf`."""

    def __init__(self, directory: Path) -> None:
        self._units = directory / "units"
        self._units.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Arrays and facts of a finished unit; None where it is missing, or is not what was written."""
        try:
            facts: dict[str, Any] = json.loads((self._units / f"{name}.json").read_bytes())
            content = (self._units / f"{name}.npz").read_bytes()
        except (OSError, ValueError):
            return None
        if hashlib.sha256(content).hexdigest() != facts.get("arrays_sha256"):
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {entry: stored[entry] for entry in stored.files}, facts

    def put(self, name: str, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """The arrays first: the JSON file beside them says that they are whole."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
        content = buffer.getvalue()
        write_atomic(self._units / f"{name}.npz", content)
        told = {**facts, "arrays_sha256": hashlib.sha256(content).hexdigest()}
        write_atomic(self._units / f"{name}.json", (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())

    def sweep(self) -> None:
        """Remove what an earlier run was writing when it was killed."""
        for path in self._units.glob(".*"):
            path.unlink(missing_ok=True)


@contextmanager
def open_shelf(directory: Path) -> Iterator[Shelf]:
    """The directory's shelf, for this process alone; the lock goes with the process, however that ends. Raises Busy."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another run writes into {directory}") from None
        shelf = Shelf(directory)
        shelf.sweep()
        yield shelf
