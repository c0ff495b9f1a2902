"""The stack's processes, on fixed ports of the loopback, with the very files that Compose mounts."""

import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adversary import processes
from adversary.processes import ChildFailed
from demo.stack import files
from tests.servers import install, triton, valkey

GUARD, METRICS, TRITON, VALKEY, PROMETHEUS = (f"127.0.0.1:{port}" for port in (9000, 9464, 8001, 6379, 9090))
_PORTS = {"Guard": GUARD, "its metrics": METRICS, "Triton": TRITON, "Valkey": VALKEY, "Prometheus": PROMETHEUS}
_START_S = 120.0


@contextmanager
def stack(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Everything, until the block ends."""
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    _check_ports()
    found = install.prometheus()
    if found is None:
        raise ChildFailed("there is no Prometheus: install the package `prometheus` (Debian, Ubuntu)")
    keys = files.keys(directory)
    env = processes.environment(keys["GUARD_SECRET"]) | {
        "GUARD_ADMIN_TOKEN": keys["GUARD_ADMIN_TOKEN"],
        "GUARD_MODELS__0__PROFILE": str(directory / "profile"),
        "GUARD_AUDIT__FILE": str(directory / "audit.jsonl"),
    }
    with ExitStack() as running:
        say("Triton")
        running.enter_context(triton.serve(files.repositories(directory), directory, port=_port(TRITON)))
        files.profile(directory, TRITON, env, say)
        say("Valkey")
        running.enter_context(valkey.start(directory, port=_port(VALKEY)))
        say("Guard")
        running.enter_context(processes.serving(files.DEPLOY / "stack" / "guard.yaml", directory / "guard.log", env))
        say("Prometheus")
        running.enter_context(_prometheus(found / "prometheus", directory))
        yield


@contextmanager
def _prometheus(program: Path, directory: Path) -> Iterator[None]:
    place = directory / "prometheus"
    shutil.rmtree(place, ignore_errors=True)  # it knows this start alone
    command = [
        str(program),
        f"--config.file={files.DEPLOY / 'prometheus' / 'prometheus.yaml'}",
        f"--storage.tsdb.path={place}",
        f"--web.listen-address={PROMETHEUS}",
        "--log.level=warn",
    ]
    log = directory / "prometheus.log"
    with processes.child(command, log, dict(os.environ)) as process:
        until = time.monotonic() + _START_S
        while not _answers(f"http://{PROMETHEUS}/-/ready"):
            if process.poll() is not None or time.monotonic() > until:
                raise ChildFailed(f"prometheus is not ready:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False


def _check_ports() -> None:
    for name, address in _PORTS.items():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", _port(address))) == 0:
                raise ChildFailed(f"{address} is taken, and {name} wants it")


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
