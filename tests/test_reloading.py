import os

import pytest

from guard.reloading import MAX_BYTES, Reloading, fingerprint
from guard.settings import ConfigError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def parse(raw: bytes) -> str:
    if raw == b"bad":
        raise ValueError("it is bad")
    return raw.decode()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reloading(file, clock):
    return Reloading(parse, file, clock=clock)


def test_a_change_is_seen_within_a_second(file, clock, reloading):
    file.write_bytes(b"two")
    assert reloading.value == "one"
    clock.now += 0.99
    assert reloading.value == "one"
    clock.now += 0.02
    assert reloading.value == "two"


def test_what_did_not_change_is_not_parsed_again(file, clock):
    parsed = []
    reloading = Reloading(parsed.append, file, clock=clock)
    for _ in range(3):
        clock.now += 2
        assert reloading.value is None
    assert parsed == [b"one"]


def test_a_change_of_the_same_size_and_time_is_seen_by_its_inode(file, clock, reloading, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"two")
    before = file.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    clock.now += 2
    assert reloading.value == "two"


@pytest.mark.parametrize("break_it", [lambda f: f.write_bytes(b"bad"), lambda f: f.unlink()])
def test_a_broken_version_keeps_the_old_one_and_is_logged_once(file, clock, reloading, caplog, break_it):
    break_it(file)
    for _ in range(3):
        clock.now += 2
        assert reloading.value == "one"
    assert len(caplog.records) == 1
    assert "kept the old version" in caplog.text
    file.write_bytes(b"good again")
    clock.now += 2
    assert reloading.value == "good again"


def test_several_files_are_one_version(tmp_path, file, clock):
    second = tmp_path / "second"
    second.write_bytes(b"1")
    reloading = Reloading(lambda a, b: a + b, file, second, clock=clock)
    second.write_bytes(b"22")
    clock.now += 2
    assert reloading.value == b"one22"
    assert len(fingerprint(file, second)) == 2


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda f: f.unlink(), "No such file"),
        (lambda f: f.write_bytes(b"bad"), "it is bad"),
        (lambda f: f.write_bytes(b"x" * (MAX_BYTES + 1)), "larger than"),
    ],
)
def test_the_first_version_must_be_good(file, prepare, text):
    prepare(file)
    with pytest.raises(ConfigError, match=text) as error:
        Reloading(parse, file)
    assert error.value.path == str(file)
