"""A server as a child process: started, waited for, and ended for sure."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str, path: str, request: bytes = b"", want: bytes | None = None) -> bool:
    """Whether a unary call ends with OK (and with these bytes)."""
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        try:
            got = call(request, timeout=2)
        except grpc.RpcError:
            return False
    return want is None or got == want


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout_s: float = 90.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends. It dies with this process too, however this process dies."""
    guardian = [setpriv, "--pdeathsig", "KILL", "--"] if (setpriv := shutil.which("setpriv")) else []
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*guardian, *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    try:
        _await(process, ready, log, timeout_s)
        yield process
    finally:
        _end(process)


def _await(process: "subprocess.Popen[bytes]", ready: Callable[[], bool], log: Path, timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            state = "is not ready" if process.poll() is None else f"ended with {process.returncode}"
            raise RuntimeError(f"{log.stem} {state}:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM and its time to drain, then SIGKILL to the whole group, so that no child of a child stays."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(15)


def workers_of(parent: int) -> dict[int, list[str]]:
    """The command lines of a process's children, by their process ids."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if ppid == parent and "guard.proxy.worker" in words:
            found[int(entry.name)] = words
    return found
