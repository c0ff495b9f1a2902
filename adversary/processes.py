"""Guard as an operator runs it: `guard fit` and `guard serve` as child processes that never outlive this one."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_LISTENING = re.compile(r"^guard: listening on (\S+)$", re.MULTILINE)
_START_S = 60.0
_DRAIN_S = 15.0
_SHOWN = 3000


_GUARDIAN = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9)  # Linux: SIGKILL when the parent is gone; it outlives exec
except (OSError, AttributeError):
    pass
if os.getppid() != int(sys.argv[1]):  # it went before that was asked for
    os._exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


class ChildFailed(RuntimeError):
    """A child process ended, or never got ready. The text ends with what it said last."""


def guard(*arguments: str) -> list[str]:
    """The command line of Guard, from this very environment."""
    return [sys.executable, "-m", "guard.cli", *arguments]


def environment(secret: str) -> dict[str, str]:
    """This environment without settings of somebody else's Guard, and with a fixed secret: runs repeat themselves."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
    return {**kept, "GUARD_SECRET": secret, "PYTHONUNBUFFERED": "1"}


@contextmanager
def child(command: Sequence[str], log: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command, its words in `log`. It ends with the block, and with this process however that ends."""
    guardian = (sys.executable, "-S", "-c", _GUARDIAN, str(os.getpid()))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [*guardian, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM and time to drain, then SIGKILL to the whole group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DRAIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(_DRAIN_S)


@contextmanager
def serving(config: Path, log: Path, env: dict[str, str]) -> Iterator[str]:
    """`guard serve` with this settings file; yields the address once it takes calls."""
    with child(guard("serve", "--config", str(config)), log, env) as process:
        until = time.monotonic() + _START_S
        while (found := _LISTENING.search(_said(log))) is None:
            if process.poll() is not None or time.monotonic() > until:
                raise ChildFailed(f"guard serve is not ready:\n{_said(log)[-_SHOWN:]}")
            time.sleep(0.05)
        yield found[1]


def fit(arguments: Sequence[str], log: Path, env: dict[str, str], tell: Callable[[str], None]) -> None:
    """`guard fit` to its end, its last word told along the way."""
    with child(guard("fit", *arguments), log, env) as process:
        while process.poll() is None:
            tell(_last_line(_said(log)))
            time.sleep(0.2)
        if process.returncode != 0:
            raise ChildFailed(f"guard fit ended with {process.returncode}:\n{_said(log)[-_SHOWN:]}")


def _said(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
    return lines[-1][:60] if lines else ""
