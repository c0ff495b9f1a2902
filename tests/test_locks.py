"""The image's locks: every requirement of pyproject.toml at one version in its range, every line with hashes."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "deploy" / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    "serve-cpu": ("cpu", "valkey", "fast", "otel", "events"),
    "serve-gpu": ("gpu", "valkey", "fast", "otel", "events"),
    "tools-cpu": ("cpu", "valkey", "fast", "otel", "events", "fit"),
    "tools-gpu": ("gpu", "valkey", "fast", "otel", "events", "fit"),
}
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "implementation_name": "cpython"}
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "platform_python_implementation": "CPython"}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}$")


def entries(name: str) -> list[list[str]]:
    """Each requirement with its hashes, as a list of words."""
    text = re.sub(r"^\s*#.*\n", "", (LOCKS / f"{name}.txt").read_text(), flags=re.MULTILINE)
    return [re.split(r"\s+(?=--hash)", line.strip()) for line in text.replace("\\\n", " ").splitlines()]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(name: str) -> dict[str, str]:
    """Package -> version, on Python 3.11 and Linux."""
    environment = {**default_environment(), **PYTHON, **LINUX}
    made = [Requirement(words[0]) for words in entries(name)]
    kept = [one for one in made if one.marker is None or one.marker.evaluate(environment)]
    assert len({normal(one.name) for one in kept}) == len(kept)
    return {normal(one.name): str(one.specifier).removeprefix("==") for one in kept}


def wanted(name: str) -> list[Requirement]:
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in EXTRAS[name])]
    return [Requirement(text) for group in groups for text in group]


def breaches(requirements: list[Requirement], versions: dict[str, str]) -> list[str]:
    """What the versions do not satisfy."""
    return [
        f"{one}: {versions.get(normal(one.name))}"
        for one in requirements
        if not one.specifier.contains(versions.get(normal(one.name), "0"), prereleases=True)
    ]


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_satisfies_the_project(name: str) -> None:
    assert breaches(wanted(name), pinned(name)) == []


@pytest.mark.parametrize("version", ["1.84.0", "1.80.0"])
def test_a_lock_that_is_behind_is_seen(version: str) -> None:
    versions = pinned("serve-cpu") | {"grpcio": version}
    assert breaches(wanted("serve-cpu"), versions) == [f"grpcio<1.84,>=1.81.1: {version}"]


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    for requirement, *hashes in entries(name):
        assert re.match(r"[a-z0-9.-]+==\S+( ;.*)?$", requirement), requirement
        assert hashes, requirement
        assert all(map(HASH.match, hashes)), requirement
    assert len(entries(name)) > 20


@pytest.mark.parametrize("name", ["serve-cpu", "serve-gpu"])
def test_what_serves_has_no_torch(name: str) -> None:
    assert not {"torch", "onnx", "onnxscript", "triton"} & set(pinned(name))
    assert not [package for package in pinned(name) if package.startswith("nvidia-")]


def test_the_locks_name_no_host() -> None:
    for file in LOCKS.glob("*.txt"):
        assert not re.search(r"https?://|^-", file.read_text(), re.MULTILINE), file.name


def test_pip_holds_a_file_against_its_hash(tmp_path: Path) -> None:
    """What the image relies on: with --require-hashes a wheel that is not the lock's is not installed."""
    wheel = tmp_path / "packaging-26.4-py3-none-any.whl"
    wheel.write_bytes(b"not the lock's")
    line = next(" ".join(words) for words in entries("serve-cpu") if words[0].startswith("packaging=="))
    wheel = wheel.rename(tmp_path / f"packaging-{pinned('serve-cpu')['packaging']}-py3-none-any.whl")
    (tmp_path / "lock.txt").write_text(line)
    pip = [sys.executable, "-m", "pip", "--isolated", "download", "--no-index", "--find-links", str(tmp_path)]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", str(tmp_path / "lock.txt"), "--dest", str(tmp_path / "got")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
