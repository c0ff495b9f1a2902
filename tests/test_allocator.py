"""Memory of large messages is kept where the C library can: seen by page faults of a fresh process."""

import ctypes
import subprocess
import sys

import pytest

from guard import allocator

TOUCH = """
import resource, sys
from guard import allocator

if sys.argv[1] == "keep":
    assert allocator.keep({}) == ("trim_threshold", "top_pad", "mmap_threshold")
for i in range(60):
    if i == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [bytes(600_000 + 8192 * (i % 3)) for _ in range(3)]  # as a message is parsed, changed and put together
    held = [b"x".join([one, one]) for one in held]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="of glibc alone")


def faults(way: str) -> int:
    done = subprocess.run([sys.executable, "-c", TOUCH, way], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


@glibc
def test_kept_memory_is_not_faulted_in_again() -> None:
    assert faults("system") > 10_000
    assert faults("keep") < 1000


class Library:
    """A C library that remembers what it was told."""

    gnu_get_libc_version = None

    def __init__(self, most: int) -> None:
        self.most, self.told = most, dict[int, int]()

    def mallopt(self, number: int, value: int) -> int:
        if value > self.most:
            return 0
        self.told[number] = value
        return 1


def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(2**40)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert allocator.keep({"MALLOC_TOP_PAD_": "0"}) == ("trim_threshold", "mmap_threshold")
    assert set(library.told) == {-1, -3}
    tunables = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=1048576"}
    assert allocator.keep(tunables) == ("trim_threshold", "top_pad")


def test_an_older_glibc_takes_half(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(2**25)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    assert allocator.keep({}) == ("top_pad", "mmap_threshold"), "what is refused is not told as done"
    assert library.told[-3] == 32 * 1024 * 1024


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert allocator.keep({}) == ()
    assert "takes no settings" in caplog.text
