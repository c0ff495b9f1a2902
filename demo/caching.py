"""What a second run need not do again: crafted examples, profiles, trained victims, keyed by all that made them."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data.cache import root, write_atomic

ROOT = Path(__file__).resolve().parent.parent


def code_digest(*packages: str) -> str:
    """A digest of a package's sources: what was made by other code is made anew."""
    files = sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))
    together = hashlib.sha256()
    for file in files:
        together.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return together.hexdigest()


def key(**parts: Any) -> str:
    """A short name for what these parts make."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(x: Array) -> str:
    """SHA-256 of an array's bytes: of one input, what the oracle's records call its digest."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()


def place(name: str) -> Path:
    """Where the demo keeps something."""
    return root() / "demo" / name


def arrays(name: str, make: Callable[[], Mapping[str, Array]]) -> dict[str, Array]:
    """Cached arrays, made where they are missing or unreadable."""
    path = place(f"{name}.npz")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {entry: stored[entry] for entry in stored.files}
    except (OSError, ValueError, EOFError):
        made = dict(make())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **made)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
    return made
