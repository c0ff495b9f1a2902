"""Where lines go: standard output, or a file that survives rotation; of several processes, one after the other."""

import contextlib
import fcntl
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary


class Sink(Protocol):
    """Takes whole lines, ASCII, each with its end."""

    def write(self, data: bytes) -> None:
        """Write at once. Raises OSError or ValueError where that fails."""
        ...

    def close(self) -> None:
        """Release what is held."""
        ...


class StdoutSink:
    """Lines to standard output."""

    def write(self, data: bytes) -> None:
        """Write ASCII lines at once."""
        sys.stdout.write(data.decode("ascii"))
        sys.stdout.flush()

    def close(self) -> None:
        """Standard output is not ours to close."""


_turns: "WeakValueDictionary[Path, threading.Lock]" = WeakValueDictionary()
"""By path: after a reload the former sink writes what it still has beside the new one, and only one may rotate."""


class FileSink:
    """Lines appended to a file that only the owner reads; opened anew where it was rotated away.

    Where the last line there is not whole (a full disk cut it, or its writer was killed) it is ended first.
    max_bytes: where it would grow past this, it becomes `NAME.1`, that one `NAME.2`, up to `keep`; None: never.
    """

    def __init__(self, path: Path, max_bytes: int | None = None, keep: int = 1) -> None:
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._torn, self._reads = False, True
        self._turn = _turns.setdefault(path.absolute(), threading.Lock())
        self._fd = self._open()

    def _open(self) -> int:
        """A file also for reading its end, where we may; a pipe for writing alone, or it would have a reader in us."""
        try:
            is_file = stat.S_ISREG(self._path.stat().st_mode)
        except FileNotFoundError:
            is_file = True
        flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._reads = is_file
        if is_file:
            try:
                return os.open(self._path, os.O_RDWR | flags, 0o600)
            except PermissionError:  # whoever writes a log need not be able to read it
                self._reads = False
        return os.open(self._path, os.O_WRONLY | flags, 0o600)

    def _rotated(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _full(self, more: int) -> bool:
        ours = os.fstat(self._fd)
        is_file = stat.S_ISREG(ours.st_mode) and ours.st_size > 0
        return self._max_bytes is not None and is_file and ours.st_size + more > self._max_bytes

    def _cut(self) -> bool:
        """Whether the last line is not whole, whoever wrote it; where that cannot be read, whether ours is not."""
        there = os.fstat(self._fd)
        if not self._reads:
            return self._torn
        return there.st_size > 0 and os.pread(self._fd, 1, there.st_size - 1) != b"\n"

    def _rotate(self) -> None:
        """The live file first: where that fails, its predecessors stay. Raises OSError."""
        aside = self._numbered(0)
        if not aside.exists():  # else left by a process that ended in between
            self._path.replace(aside)
        for number in range(self._keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))
        aside.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _reopen(self) -> None:
        fresh = self._open()
        os.close(self._fd)
        self._fd, self._torn = fresh, False

    def write(self, data: bytes) -> None:
        """Append lines. Raises OSError."""
        with self._turn:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._rotated():
            self._reopen()
        if self._full(self._cut() + len(data)):
            self._rotate()
            self._reopen()
        view = memoryview(b"\n" + data if self._cut() else data)
        while view:
            written = os.write(self._fd, view)
            self._torn = written < len(view)
            view = view[written:]

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)


class TurnSink:
    """Lines of several processes to one place: whoever writes holds a lock on a file that they share.

    A long write to a pipe is cut where the pipe is full, and what others write gets in between. The kernel gives the
    lock of a process that dies to the next.
    """

    def __init__(self, sink: Sink, turn: Path) -> None:
        self._sink = sink
        self._turn = os.open(turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Write once it is this process's turn. Raises OSError or ValueError."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            self._sink.write(data)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release what is held."""
        self._sink.close()
        os.close(self._turn)
