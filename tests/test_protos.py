"""The generated code is what protoc makes of protos/, and the contract breaks nothing that was released."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACT = "guard/v1/guard.proto"


def run(script: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """One of the scripts, with the tools of the interpreter that runs the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PYTHON": sys.executable}
    return subprocess.run([script, *args], env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the scripts look at, to break."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copytree(ROOT / "guard" / "wire", tmp_path / "guard" / "wire")
    return tmp_path


def edit(tree: Path, old: str, new: str) -> None:
    file = tree / "protos" / CONTRACT
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_generated_code_is_fresh():
    done = run(ROOT / "protos" / "generate.sh", "--check")
    assert done.returncode == 0, done.stderr


def test_stale_generated_code_is_seen(tree):
    edit(tree, "string decision_id = 1;\n  Action action = 2;", "string id = 1;\n  Action action = 2;")
    done = run(tree / "protos" / "generate.sh", "--check")
    assert done.returncode == 1
    assert "stale" in done.stderr


def test_contract_breaks_nothing():
    done = run(ROOT / "protos" / "check_breaking.sh")
    assert done.returncode == 0, done.stdout + done.stderr


def test_added_field_breaks_nothing(tree):
    edit(tree, "message StatusRequest {}", "message StatusRequest {\n  string model = 1;\n}")
    assert run(tree / "protos" / "check_breaking.sh").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("double threshold = 5;\n  bool fired = 6;", "double threshold = 9;\n  bool fired = 6;", '"5"'),
        ("uint32 calibration_size = 4;", "string calibration_size = 4;", "changed type"),
        ("bool only_non_allowed = 2;", "bool non_allowed_only = 2;", "only_non_allowed"),
        ("  rpc Status(StatusRequest) returns (StatusResponse);", "", "Status"),
        ("  bool remember = 6;\n", "", "remember"),
    ],
)
def test_breaking_change_is_seen(tree, old, new, complaint):
    edit(tree, old, new)
    done = run(tree / "protos" / "check_breaking.sh")
    assert done.returncode != 0
    assert complaint in done.stdout + done.stderr


def test_bad_style_is_seen(tree):
    edit(tree, "message StatusRequest {}", "message StatusRequest {}\nmessage bad_name {}")
    done = run(tree / "protos" / "check_breaking.sh")
    assert done.returncode != 0
    assert "bad_name" in done.stdout
