"""Check an image that deploy/image/build built: what is in it, and that it serves under the strictest rules.

It is started by runc from the image's own user, environment, entry point and command, with a read-only root and nothing
writable, without capabilities, with no new privileges, in namespaces of its own (mounts, processes, IPC, network). A
real client then calls it from inside its network. A line for each check; exit status 1 where one fails.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import running

MAX_BYTES = {"serve": 450_000_000}
COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|cc1|cc1plus|clang|tcc|ld|as|rustc|go|nvcc|cmake|make)(-?[\d.]+)?")
KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{32}")
SECRET_FILES = {".netrc", ".pypirc", "pip.conf", ".git-credentials", "id_rsa", "id_ed25519", ".env"}
SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSW|_KEY$|CREDENTIAL|INDEX_URL", re.IGNORECASE)


class Report:
    """What was looked at, and how it was."""

    def __init__(self) -> None:
        self.failed = 0

    def say(self, name: str, good: object, found: object = "") -> None:
        """One line."""
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'}  {name}{f': {found}' if found != '' else ''}", flush=True)


def files(rootfs: Path) -> Iterator[Path]:
    """Every regular file, links not followed."""
    for directory, _, names in os.walk(rootfs):
        for name in names:
            file = Path(directory, name)
            if file.is_file() and not file.is_symlink():
                yield file


def size(rootfs: Path) -> int:
    """Bytes of all files, uncompressed, each once however many names it has."""
    return sum({(s.st_dev, s.st_ino): s.st_size for s in (file.stat() for file in files(rootfs))}.values())


def compilers(rootfs: Path) -> list[str]:
    return sorted(
        str(file.relative_to(rootfs))
        for file in files(rootfs)
        if os.access(file, os.X_OK) and COMPILER.fullmatch(file.name) and b"ELF" in file.open("rb").read(4)
    )


def secrets(rootfs: Path, image: str, mark: str) -> list[str]:
    """Where the build's secret, a private key, or a file that usually holds a password is."""
    found = ["the image's configuration"] if mark in image else []
    for file in files(rootfs):
        data = file.read_bytes()
        key = not data.startswith(b"\x7fELF") and KEY.search(data)  # gnutls tests itself with keys that it brings
        if mark.encode() in data or key or (file.name in SECRET_FILES and data.strip()):
            found.append(str(file.relative_to(rootfs)))
    return found


def torches(rootfs: Path) -> list[str]:
    return sorted(str(p.relative_to(rootfs)) for p in rootfs.glob("opt/guard/lib/python3*/site-packages/torch*"))


def unlisted(rootfs: Path) -> set[str]:
    """Packages that are there and not in the SBOM, or the other way round."""
    bom = json.loads((rootfs / "opt/guard/share/sbom.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    listed = {f"{one['name'].lower().replace('_', '-')}=={one['version']}" for one in bom["components"]}
    there = set()
    for info in rootfs.glob("opt/guard/lib/python3*/site-packages/*.dist-info/METADATA"):
        head = dict(re.findall(r"^(Name|Version): (.*)$", info.read_text(errors="replace"), re.MULTILINE)[:2])
        there.add(f"{head['Name'].lower().replace('_', '-')}=={head['Version']}")
    return (listed ^ there) - {one for one in there if one.startswith("guard-sidecar==")}


def contents(rootfs: Path, image: dict[str, Any], mark: str, target: str, report: Report) -> None:
    """What can be seen without running it."""
    config, text = image["OCIv1"]["config"], json.dumps(image)
    labels = config["Labels"]
    total, limit = size(rootfs), MAX_BYTES.get(target)
    report.say("uncompressed size", limit is None or total < limit, f"{total / 1e6:.0f} MB (limit {limit or 'none'})")
    if target == "serve":
        report.say("no torch", not torches(rootfs), torches(rootfs))
    report.say("no compiler", not compilers(rootfs), compilers(rootfs))
    report.say("no secret", not (found := secrets(rootfs, text, mark)), found)
    named = [one for one in config["Env"] if SECRET_NAMES.search(one.partition("=")[0])]
    report.say("no secret in the environment", not named, named)
    report.say("not root", config["User"].split(":")[0] not in {"", "0", "root"}, config["User"])
    report.say("the SBOM lists what is installed", not (odd := unlisted(rootfs)), odd or "")
    wanted = [f"org.opencontainers.image.{name}" for name in ("title", "version", "revision", "created", "licenses")]
    report.say("labels", all(labels.get(name) for name in wanted), {name[25:]: labels.get(name) for name in wanted})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("rootfs", "image", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("mark", "target", "runtime"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    image, report = json.loads(args.image.read_text()), Report()
    contents(args.rootfs, image, args.mark, args.target, report)
    if args.runtime == "cpu":
        try:
            running.check(args.rootfs, image["Docker"]["config"], args.work, args.target, report.say)
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            report.say("it runs", False, error)
    else:
        print("--    not started: it needs a GPU")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
