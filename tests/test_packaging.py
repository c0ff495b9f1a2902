"""What is shipped: the wheel holds everything that runs, and nothing else."""

import subprocess
import zipfile
from pathlib import Path

import pytest

import guard
from tests.servers import wheel

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> wheel.Installed:
    return wheel.installed(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(installed: wheel.Installed) -> set[str]:
    with zipfile.ZipFile(installed.wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module(names: set[str]) -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("guard", "adversary")
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= names
    assert {"guard/wire/open_inference_pb2.py", "guard/wire/guard/v1/guard_pb2_grpc.py"} <= names


def test_the_wheel_holds_what_is_not_python(names: set[str]) -> None:
    assert {"guard/py.typed", "adversary/py.typed", "guard/wire/open_inference_pb2.pyi"} <= names
    victims = {path.relative_to(ROOT).as_posix() for path in (ROOT / "adversary" / "victims").glob("*.onnx")}
    assert victims <= names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "guard" / "proxy" / "static").iterdir()}
    assert page
    assert page <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {"guard/_kernels.abi3.so", "guard/_nghttp2.abi3.so"} <= names


def test_the_wheel_holds_nothing_else(names: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in names} == {"guard", "adversary", "guard_sidecar"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".c", ".h"))]


def test_one_wheel_serves_every_python_from_3_11(installed: wheel.Installed) -> None:
    assert "-cp311-abi3-" in installed.wheel.name
    assert run(installed, "-c", "from guard import kernels; print(kernels.compiled.__name__)") == "guard._kernels"


def test_it_says_its_version(installed: wheel.Installed) -> None:
    assert run(installed, "-m", "guard.cli", "--version") == f"guard {guard.__version__}"
    assert (
        run(installed, "-c", "import importlib.metadata as m; print(m.version('guard-sidecar'))") == guard.__version__
    )


def test_it_is_the_installed_one(installed: wheel.Installed) -> None:
    assert str(installed.wheel.parent) in run(installed, "-c", "import guard; print(guard.__file__)")


def test_both_scripts_are_there(installed: wheel.Installed) -> None:
    scripts = installed.wheel.parent / "installed" / "bin"
    assert {path.name for path in scripts.iterdir()} >= {"guard", "adversary"}


def test_the_library_works_without_a_server(installed: wheel.Installed) -> None:
    assert run(installed, "-c", "import guard; print(guard.Engine.__module__, guard.load_profile.__module__)") == (
        "guard.engine guard.profile"
    )


def run(installed: wheel.Installed, *arguments: str) -> str:
    done = subprocess.run(
        [installed.python, *arguments], env=installed.env, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
