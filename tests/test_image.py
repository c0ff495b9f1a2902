"""The Dockerfile and its context, without building: hadolint, hashes, the user, and what may be sent to a builder."""

import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from guard import config

sys.path.append(str(Path(__file__).parent.parent / "deploy" / "image"))
import check

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"
IMAGE = ROOT / "deploy" / "image"


def hadolint(file: Path) -> list[str]:
    """The rules that it breaks."""
    command = [str(Path(sys.executable).parent / "hadolint"), "--no-color", "--format", "json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [one["code"] for one in json.loads(done.stdout)]


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction, arguments in instructions():
        if instruction == "FROM":
            found[arguments.rpartition(" AS ")[2]] = []
        if found:
            next(reversed(found.values())).append((instruction, arguments))
    return found


def test_hadolint_is_content() -> None:
    assert hadolint(DOCKERFILE) == []


def test_hadolint_sees_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text().replace("apt-get install --yes", "apt-get install"))
    assert set(hadolint(wrong)) == {"DL3014"}


def test_every_package_is_installed_by_hash() -> None:
    script = (IMAGE / "install").read_text()
    installs = re.findall(r"pip .*\binstall\b.*", DOCKERFILE.read_text() + script)
    assert len(installs) == 3
    for one in installs:
        assert "--require-hashes" in one or "--no-index" in one, one
    assert "no-cache" in DOCKERFILE.read_text().lower().replace("_", "-")


def test_what_is_left_behind_and_what_runs() -> None:
    serve, tools = stages()["serve"], stages()["tools"]
    assert list(stages())[-1] == "serve"  # without a target, this is built
    for stage in (serve, tools):
        assert ("USER", "65532:65532") in stage
        assert [arguments for instruction, arguments in stage if instruction == "COPY"] == [
            f"--from={'serve' if stage is serve else 'tools'}-packages /opt/guard /opt/guard"
        ]
        assert stage[0] == ("FROM", f"runtime AS {'serve' if stage is serve else 'tools'}")
    assert not re.search("gcc|BUILD_PACKAGES|pip", " ".join(text for _, text in stages()["runtime"]))
    (health,) = [arguments for instruction, arguments in serve if instruction == "HEALTHCHECK"]
    assert json.loads(health.partition("CMD ")[2]) == ["guard", "probe"]


def test_ports_are_those_of_the_example() -> None:
    settings = config.load(ROOT / "deploy" / "guard.yaml", {})
    (ports,) = [arguments for instruction, arguments in instructions() if instruction == "EXPOSE"]
    addresses = (settings.listen.address, settings.admin.http, settings.admin.grpc)
    assert ports.split() == [str(address).rpartition(":")[2] for address in addresses]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("guard/cli.py", True),
        ("deploy/requirements/serve-cpu.txt", True),
        ("deploy/image/slim", True),
        ("deploy/image/check.py", False),
        ("deploy/guard.yaml", False),
        ("guard/_kernels.abi3.so", False),
        (".git/config", False),
        (".env", False),
        ("tests/conftest.py", False),
    ],
)
def test_what_a_builder_is_sent(path: str, sent: bool) -> None:
    """The last line of .dockerignore that a path, or a directory of it, matches is the one that counts."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().split():
        pattern, parts = line.removeprefix("!"), path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if any(fnmatch(head, pattern) and head.count("/") == pattern.count("/") for head in heads) or (
            pattern.startswith("**/") and any(fnmatch(part, pattern[3:]) for part in parts)
        ):
            ignored = not line.startswith("!")
    assert ignored is not sent


def test_the_scripts_are_sound() -> None:
    for name in ("image/build", "image/install", "image/slim", "requirements/lock"):
        file = ROOT / "deploy" / name
        shell = file.read_text().partition("\n")[0].rpartition("/")[2].split()[-1]
        subprocess.run([shell, "-n", str(file)], check=True)
        assert file.stat().st_mode & 0o111


ELF = b"\x7fELF and so on"
PRIVATE = b"-----BEGIN PRIVATE KEY-----\n" + 64 * b"A" + b"\n"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """What an image must not be."""
    packages = tmp_path / "opt/guard/lib/python3.11/site-packages"
    for name, content in {
        "usr/bin/x86_64-linux-gnu-gcc-12": ELF,
        "usr/bin/ccrypt": ELF,
        "usr/bin/make": b"#!/bin/sh",
        "usr/lib/libtls.so": ELF + PRIVATE,
        "etc/pip.conf": b"[global]",
        "var/cache/left": b"before the mark and after",
        "srv/key.pem": PRIVATE,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755)
    for name in ("torch", "Known-1.dist-info", "odd_one-2.dist-info"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").write_text(f"Name: {name.partition('-')[0]}\nVersion: {name[-11:-10]}\n")
    (tmp_path / "opt/guard/share").mkdir()
    listed = [{"name": "known", "version": "1"}, {"name": "gone", "version": "3"}]
    bom = {"bomFormat": "CycloneDX", "components": listed}
    (tmp_path / "opt/guard/share/sbom.cdx.json").write_text(json.dumps(bom))
    return tmp_path


def test_what_must_not_be_in_an_image_is_found(rootfs: Path) -> None:
    """The checks that deploy/image/build makes can fail."""
    assert check.compilers(rootfs) == ["usr/bin/x86_64-linux-gnu-gcc-12"]
    assert sorted(check.secrets(rootfs, "", "the mark")) == ["etc/pip.conf", "srv/key.pem", "var/cache/left"]
    assert check.secrets(rootfs / "usr", "with the mark", "the mark") == ["the image's configuration"]
    assert len(check.torches(rootfs)) == 1
    assert check.unlisted(rootfs) == {"odd-one==2", "gone==3"}
    before = check.size(rootfs)
    (rootfs / "twice").hardlink_to(rootfs / "srv/key.pem")
    assert check.size(rootfs) == before > 300
