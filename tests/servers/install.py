"""Virtual environments for real servers, made once in a cache outside the tree; and programs that are no wheels.

`python -m tests.servers.install triton mlserver chromium redis nghttp2 prometheus` makes them ahead of the tests; a
fixture makes what is missing. An environment is complete when its stamp is there: what an interrupted installation left
is thrown away.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# pytriton's wheel carries the real tritonserver 2.51. Its python backend loads libpython3.11.so: Debian's, not pyenv's.
TRITON = ("triton-2.51", ("nvidia-pytriton==0.7.0", "onnxruntime==1.23.2", "numpy<2"))
MLSERVER = ("mlserver-1.7.1", ("mlserver==1.7.1", "onnxruntime==1.23.2"))
SYSTEM_PYTHON = Path("/usr/bin/python3.11")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
REDIS = ("redis-server", "redis-check-rdb")
NGHTTP2 = Path("/usr/include/nghttp2/nghttp2.h")


def cache() -> Path:
    """Where environments are kept: $XDG_CACHE_HOME/guard or ~/.cache/guard."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "guard"


def environment(name: str, requirements: Sequence[str], python: str = sys.executable, *options: str) -> Path:
    """The environment's directory, made now if need be. Safe when several test runs ask at once."""
    directory = cache() / name
    stamp = directory / ".complete"
    with _locked(cache() / f"{name}.lock"):
        if not stamp.exists():
            sys.stderr.write(f"making {directory} with {', '.join(requirements)}\n")
            sys.stderr.flush()
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([python, "-I", "-m", "venv", "--without-pip", str(directory)], check=True)
            install(directory, requirements, *options)
            stamp.touch()
    return directory


def install(directory: Path, requirements: Sequence[str], *options: str) -> None:
    """Install with this interpreter's pip: Debian's Python may have none of its own. Its words go to the console."""
    python = str(directory / "bin" / "python")
    pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", *options, *requirements], check=True, stdout=sys.stderr)


def triton() -> Path:
    python = str(SYSTEM_PYTHON) if SYSTEM_PYTHON.exists() else (shutil.which("python3.11") or sys.executable)
    return environment(*TRITON, python=python)


def mlserver() -> Path:
    return environment(*MLSERVER)


def chromium() -> Path | None:
    """The browser that pages are looked at with; installed where that is ours to do. None: such tests say they skip."""
    return _program(CHROMIUM, CHROMIUM[0])


def redis() -> Path | None:
    """A Redis server; Debian's, where that is ours to install: its server is in redis-tools, under other names, too.

    The package redis-server would start one. None: such tests say they skip.
    """
    return _program(REDIS, "redis-tools")


def nghttp2() -> Path | None:
    """The header of libnghttp2, which comes with the library. None: such tests say they skip."""
    found = _installed(lambda: NGHTTP2 if NGHTTP2.exists() else None, "libnghttp2-dev")
    return None if found is None else Path(found)


def prometheus() -> Path | None:
    """Where `prometheus` and `promtool` are. None: such tests say they skip.

    Debian's package would start a server, so it is only unpacked: into the cache, which takes no root.
    """
    found = shutil.which("prometheus")
    if found is not None and shutil.which("promtool"):
        return Path(found).parent
    directory = cache() / "prometheus"
    with _locked(cache() / "prometheus.lock"):
        if not (directory / ".complete").exists() and shutil.which("apt-get"):
            _unpack("prometheus", directory)
    return directory / "usr" / "bin" if (directory / ".complete").exists() else None


def _unpack(package: str, directory: Path) -> None:
    """What is in one of Debian's packages; nothing of it is run."""
    sys.stderr.write(f"fetching {package}\n")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    fetch = ["apt-get", "download", "-qq", package]
    if subprocess.run(fetch, check=False, cwd=directory, stderr=subprocess.DEVNULL).returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        subprocess.run(fetch, check=False, cwd=directory)
    for file in directory.glob("*.deb"):
        if subprocess.run(["dpkg-deb", "-x", file, directory], check=False).returncode == 0:
            (directory / ".complete").touch()


def _program(names: Sequence[str], package: str) -> Path | None:
    """The first of these programs that is there; else from Debian's package, for root."""
    found = _installed(lambda: next((path for name in names if (path := shutil.which(name))), None), package)
    return None if found is None else Path(found)


def _installed(look: Callable[[], Path | str | None], package: str) -> Path | str | None:
    found = look()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stderr.write(f"installing {package}\n")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", package)):
            subprocess.run(["apt-get", *words], check=False, stdout=subprocess.DEVNULL, env=quiet)
        found = look()
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    every = {"triton": triton, "mlserver": mlserver, "chromium": chromium, "redis": redis, "nghttp2": nghttp2}
    every["prometheus"] = prometheus
    for wanted in sys.argv[1:]:
        every[wanted]()
