"""Files that are read again when one changes; a broken new version keeps the old one in use, and is logged once."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from guard.settings import ConfigError

T = TypeVar("T")

Fingerprint = tuple[tuple[int, int, int, int], ...]
MAX_BYTES = 1024 * 1024
_log = logging.getLogger(__name__)


def fingerprint(*paths: Path) -> Fingerprint:
    """Changes when a file does, also where a symlink above it is swapped. Raises OSError."""
    return tuple((s.st_mtime_ns, s.st_ino, s.st_dev, s.st_size) for s in (path.stat() for path in paths))


def read(path: Path) -> bytes:
    """The whole of a small file. Raises OSError, and ValueError where it is not small."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES} bytes")
    return raw


def why(error: OSError | ValueError) -> str:
    """The reason in words for a log or a ConfigError."""
    return f"cannot read {error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


class Reloading(Generic[T]):
    """`value` is what `parse` made of the files' latest good version; they are looked at every `every_s` at most.

    Raises ConfigError where the first version cannot be used.
    """

    def __init__(
        self,
        parse: Callable[..., T],
        *paths: Path,
        every_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parse, self._paths, self._every_s, self._clock = parse, paths, every_s, clock
        try:
            self._seen: Fingerprint | None = fingerprint(*paths)
            self._value = self._read()
        except (OSError, ValueError) as error:
            raise ConfigError(str(paths[0]), why(error)) from None
        self._complaint: object = None
        self._next = clock() + every_s

    @property
    def value(self) -> T:
        """The latest good version."""
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every_s
            self._look()
        return self._value

    def _look(self) -> None:
        there = None
        try:
            there = fingerprint(*self._paths)
            if there == self._seen:
                return
            self._value = self._read()
        except (OSError, ValueError) as error:
            complaint = (there, why(error))
            if complaint != self._complaint:
                _log.error("%s: kept the old version: %s", self._paths[0], complaint[1])
            self._complaint = complaint
        else:
            self._seen, self._complaint = there, None
            _log.info("%s: read again", self._paths[0])

    def _read(self) -> T:
        return self._parse(*(read(path) for path in self._paths))
