"""The built wheel, and an environment that holds what it asks for: Guard as a user installs it, without torch."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers import install

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("guard", "adversary", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installed:
    """A wheel, and a Python that runs it with its dependencies and nothing else."""

    wheel: Path
    python: str
    env: dict[str, str]


def build(directory: Path) -> Path:
    """Build the wheel from a copy of the sources, so that the tree stays as it is."""
    copy = directory / "source"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(source, copy / name, ignore=ignore) if source.is_dir() else shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(copy)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = directory.glob("*.whl")
    return wheel


def installed(directory: Path) -> Installed:
    """The wheel's dependencies (extra cpu) from a cached environment named by their digest, the wheel itself fresh."""
    wheel = build(directory)
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    needs = sorted(line for line in lines if line.startswith("Requires-Dist: "))
    digest = hashlib.sha256("\n".join([sys.version, *needs]).encode()).hexdigest()[:12]
    venv = install.environment(f"serving-{digest}", [f"{wheel}[cpu]"])
    target = directory / "installed"
    install.install(venv, [str(wheel)], "--quiet", "--no-deps", "--target", str(target))
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return Installed(wheel, str(venv / "bin" / "python"), {**env, "PYTHONPATH": str(target)})
