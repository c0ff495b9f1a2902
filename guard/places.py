"""Where the quarantine lies: a directory, or a bucket that speaks S3.

A directory needs nothing but Python; files are the owner's alone, and appear whole or not at all. S3 needs the extra
`quarantine` (fsspec, s3fs); credentials come from the environment or from AWS's own files, as boto finds them, never
from settings or addresses. What lies there is encrypted by the place: the volume, or the bucket.
Errors: PlaceError for an address that cannot be used, OSError for what fails later.
"""

import contextlib
import os
import secrets
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

_TIMEOUT_S = 10
MAX_READ_BYTES = 256 * 1024 * 1024


class PlaceError(ValueError):
    """An address that cannot be used, in words for operators."""


class Place(Protocol):
    """Objects under names with slashes. Every method raises OSError."""

    def write(self, name: str, data: bytes) -> None:
        """Put it there whole, in place of what had the name."""
        ...

    def names(self, under: str) -> list[str]:
        """Sorted, of everything below `under/`; none where there is no such thing."""
        ...

    def read(self, name: str) -> bytes:
        """The whole of it."""
        ...


@dataclass(frozen=True)
class Directory:
    """Files below a directory."""

    root: Path

    def write(self, name: str, data: bytes) -> None:
        """Into a file of another name first."""
        path = self.root / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise

    def names(self, under: str) -> list[str]:
        """Of files that are whole."""
        found = (self.root / under).rglob("*")
        return sorted(p.relative_to(self.root).as_posix() for p in found if p.is_file() and p.name[0] != ".")

    def read(self, name: str) -> bytes:
        """Of at most MAX_READ_BYTES."""
        with (self.root / name).open("rb") as file:
            data = file.read(MAX_READ_BYTES + 1)
        return _bounded(data)


@dataclass(frozen=True)
class Objects:
    """Objects below a prefix of an fsspec file system. Whatever it raises becomes an OSError without its text."""

    fs: Any
    root: str

    def write(self, name: str, data: bytes) -> None:
        """One upload."""
        with _as_oserror():
            self.fs.pipe_file(f"{self.root}/{name}", data)

    def names(self, under: str) -> list[str]:
        """Below the prefix."""
        with _as_oserror():
            try:
                found = self.fs.find(f"{self.root}/{under}")
            except FileNotFoundError:
                return []
        start = self.root.strip("/") + "/"
        return sorted(name.lstrip("/").removeprefix(start) for name in found)

    def read(self, name: str) -> bytes:
        """Of at most MAX_READ_BYTES."""
        with _as_oserror():
            return _bounded(bytes(self.fs.cat_file(f"{self.root}/{name}", end=MAX_READ_BYTES + 1)))


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_READ_BYTES:
        raise OSError(f"an object has more than {MAX_READ_BYTES} bytes")
    return data


@contextlib.contextmanager
def _as_oserror() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - a client of S3 raises dozens of types
        raise OSError(f"the place does not answer as it should: {type(error).__name__}") from None


def check(url: str) -> None:
    """Raises PlaceError where an address is neither a path nor a bucket."""
    parts = urllib.parse.urlsplit(url)
    if "://" not in url:
        return
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise PlaceError("is file:///PATH")
    elif parts.scheme == "s3":
        if "@" in parts.netloc or parts.query:
            raise PlaceError("holds no credentials: they come from the environment or AWS's own files")
        if not parts.netloc:
            raise PlaceError("is s3://BUCKET/PREFIX")
    else:
        raise PlaceError("is a directory, file:///PATH or s3://BUCKET/PREFIX")


def place_of(url: str, endpoint_url: str | None = None, encryption: Mapping[str, str] = MappingProxyType({})) -> Place:
    """The place of an address; nothing is written or asked yet. Raises PlaceError.

    endpoint_url: of a server that is not AWS's. encryption: what each upload asks for, in the words of S3's PutObject.
    """
    check(url)
    parts = urllib.parse.urlsplit(url)
    if "://" not in url or parts.scheme == "file":
        return Directory(Path(urllib.parse.unquote(parts.path) if "://" in url else url))
    try:
        import s3fs  # noqa: PLC0415 - an extra
    except ImportError:
        raise PlaceError("s3 needs the extra `quarantine`: pip install '.[quarantine]' in a clone") from None
    fs = s3fs.S3FileSystem(
        endpoint_url=endpoint_url,
        s3_additional_kwargs=dict(encryption),
        config_kwargs={
            "connect_timeout": _TIMEOUT_S,
            "read_timeout": _TIMEOUT_S,
            "retries": {"total_max_attempts": 1},
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    fs.retries = 1  # who writes has his own
    return Objects(fs, (parts.netloc + parts.path).rstrip("/"))
