"""Serving starts lean: no torch, whether or not it is installed, and with little work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import guard, wheel

HEAVY = ("torch", "torchvision", "onnx", "onnxscript", "scipy", "sympy", "matplotlib", "pandas", "adversary")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> wheel.Installed:
    return wheel.installed(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def settings(digits_file: Path, clean_file: Path, tmp_path: Path) -> dict[str, object]:
    """Everything that a serving process loads: an embedded model, a profile, every stage."""
    guard.fit(["--model", str(digits_file), "--clean", str(clean_file), "--out", "profile"], tmp_path)
    stages = {"profile": str(tmp_path / "profile"), "mode": "enforce", **guard.EVERY_STAGE}
    return {"models": [{"name": "digits", "embedded": {"file": str(digits_file)}, **stages}]}


def imported(log: Path) -> set[str]:
    """Top-level packages in the log of a Python that reports its imports."""
    lines = [line for line in log.read_text().splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


def test_no_torch_where_torch_is_installed(settings: dict[str, object], tmp_path: Path) -> None:
    """This environment has torch: the control imports it, and it shows."""
    env = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    control = tmp_path / "control.log"
    with control.open("w") as log:
        subprocess.run([sys.executable, "-c", "import torch"], env=env, stderr=log, check=True)
    assert "torch" in imported(control)
    with guard.start(tmp_path, settings, env=env) as running:
        loaded = imported(running.log)
        mapped = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert {"guard", "grpc", "onnxruntime", "numpy"} <= loaded
    assert loaded.isdisjoint(HEAVY)
    assert "libtorch" not in mapped


def test_starts_without_torch_in_little_time(
    settings: dict[str, object], installed: wheel.Installed, tmp_path: Path
) -> None:
    """From the wheel, with extra cpu alone: until it takes calls it spends little beside what its libraries do."""
    missing = [installed.python, "-c", "import torch"]
    assert subprocess.run(missing, env=installed.env, capture_output=True, check=False).returncode == 1
    spent, control = [], []
    for i in range(3):
        directory = tmp_path / str(i)
        directory.mkdir()
        with guard.start(directory, settings, python=installed.python, env=installed.env) as running:
            spent.append(cpu_seconds(running.process.pid))
        control.append(imports(installed))
    assert 0.05 < min(spent) < 4 * min(control), (spent, control)


def imports(installed: wheel.Installed) -> float:
    """CPU time of a process that does nothing but import the libraries of a serving process."""
    began = os.times()
    libraries = "import cv2, google.protobuf, grpc.aio, jwt, numpy, onnxruntime, pydantic, yaml"
    subprocess.run([installed.python, "-c", libraries], env=installed.env, check=True)
    ended = os.times()
    return ended.children_user + ended.children_system - began.children_user - began.children_system


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
