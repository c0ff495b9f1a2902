"""A chained audit log: what was done to it is seen, whatever it was, and a log that was left alone is good."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guard import chain, cli
from guard.audit import Audit
from guard.metrics import Metrics
from guard.recorded import Tally, read
from guard.settings import Audit as Settings
from guard.settings import ConfigError
from tests.forensics import step
from tests.receivers import receiving

KEY = "a key of the tests, long enough"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "chain.key"
    file.write_text(KEY)
    return file


def write(log: Path, key: Path, events: int = 5, **options: Any) -> list[str]:
    """One life of a writer."""
    audit = Audit(Settings(file=log, chain_key_file=key, **options), Metrics())
    for i in range(events):
        audit.record(step(i % 5))
    audit.close()
    return log.read_text().splitlines()


def test_a_log_that_was_left_alone(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "audit.jsonl"
    write(log, key)
    lines = write(log, key)
    assert json.loads(lines[0])["event"] == chain.BEGIN
    assert json.loads(lines[-1])["event"] == chain.END
    assert cli.main(["audit", "verify", str(log), "--key-file", str(key)]) == 0
    said = capsys.readouterr().out
    assert said.count("writer ") == 2
    assert said.endswith("good\n")
    tally = Tally()
    events = list(read(log, tally))
    assert len(events) == tally.events == len(lines) - 4
    assert tally.unreadable == 0


def taken_out(lines: list[str]) -> list[str]:
    return lines[:2] + lines[3:]


def swapped(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def twice(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[1], *lines[2:]]


def changed(lines: list[str]) -> list[str]:
    return [line.replace('"caller":"peer:10.0.0.1"', '"caller":"peer:10.0.0.2"') for line in lines]


def renumbered(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[3].replace('"seq":3', '"seq":2'), *lines[4:]]


def unchained(lines: list[str]) -> list[str]:
    return [*lines, '{"event":"guard.decision","caller":"c"}']


def forged(lines: list[str]) -> list[str]:
    other = chain.Chain(b"another key, long enough")
    return [*lines, other.link('{"event":"guard.decision","caller":"c"}')]


def cut(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2][:-20], *lines[3:]]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (taken_out, "a.jsonl:3: writer W: seq 3 follows seq 1: 1 missing"),
        (swapped, "a.jsonl:3: writer W: seq 1 follows seq 2: not where it was"),
        (twice, "a.jsonl:3: writer W: seq 1 follows seq 1: not where it was, or there twice"),
        (changed, "a.jsonl:2: altered"),
        (renumbered, "a.jsonl:3: altered"),
        (unchained, "a.jsonl:7: without a chain"),
        (forged, "a.jsonl:7: altered, or of another key"),
        (cut, "a.jsonl:3: without a chain, or cut"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_was_done_to_it_is_seen_and_where(
    what: Callable[[list[str]], list[str]], said: str, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "a.jsonl"
    lines = write(log, key, 8)
    assert len(lines) == 6
    log.write_text("".join(f"{line}\n" for line in what(lines)))
    assert cli.main(["audit", "verify", str(log), "--key-file", str(key)]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path}/{said.replace('W', writer_of(lines))}" in out
    assert out.endswith("NOT as it was written\n")


def writer_of(lines: list[str]) -> str:
    return str(json.loads(lines[0])["chain"]["writer"])


def test_a_swap_is_told_once_at_each_of_its_places(key: Path, tmp_path: Path) -> None:
    """Not of the line that follows, too."""
    verdict = verify(swapped(write(tmp_path / "a", key, 8)))
    assert [one.partition(":")[0] for one in verdict.wrong] == ["2", "3"]


def test_what_is_wrong_everywhere_is_told_in_part(key: Path, tmp_path: Path) -> None:
    verdict = verify(changed(write(tmp_path / "a", key, 100)))
    assert len(verdict.wrong) == chain.MAX_TOLD
    assert verdict.untold == verdict.altered + sum(one.missing > 0 for one in verdict.writers.values()) - 20
    assert f"... and {verdict.untold} more" in list(chain.told(verdict))


def verify(lines: list[str], *keys: str) -> chain.Verdict:
    numbered = ((str(number), line.encode()) for number, line in enumerate(lines, start=1))
    return chain.verify(numbered, [key.encode() for key in keys or (KEY,)])


def test_places_are_of_each_file(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    lines = write(one, key, 8)
    one.write_text("".join(f"{line}\n" for line in lines[:3]))
    two.write_text("".join(f"{line}\n" for line in lines[4:]))
    assert cli.main(["audit", "verify", str(one), str(two), "--key-file", str(key)]) == 1
    assert f"{two}:1: writer {writer_of(lines)}: seq 4 follows seq 2: 1 missing" in capsys.readouterr().out


def test_a_key_that_was_changed(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log of two keys is verified with both, or either part with its own."""
    log, new = tmp_path / "a", tmp_path / "new.key"
    new.write_text("another key of the tests")
    old_part = len(write(log, key))
    lines = write(log, new)
    command = ["audit", "verify", str(log), "--whole"]
    assert cli.main([*command, "--key-file", str(key), "--key-file", str(new)]) == 0
    assert cli.main([*command, "--key-file", str(new)]) == 1
    assert f"{log}:1: altered, or of another key" in capsys.readouterr().out
    log.write_text("".join(f"{line}\n" for line in lines[old_part:]))
    assert cli.main([*command, "--key-file", str(new)]) == 0


def test_a_former_key_writes_nothing_into_a_writer_of_another(key: Path, tmp_path: Path) -> None:
    lines = write(tmp_path / "a", key)
    other = chain.Chain(b"a former key, long enough")
    place = json.loads(lines[-1])["chain"]
    other._writer, other._seq, other._prev = place["writer"].encode(), place["seq"] + 1, place["mac"].encode()
    verdict = verify([*lines, other.link('{"event":"guard.decision","caller":"c"}')], KEY, "a former key, long enough")
    assert verdict.wrong == [f"{len(lines) + 1}: altered, or of another key"]


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_log_is_not_good(text: str, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "a"
    log.write_text(text)
    assert cli.main(["audit", "verify", str(log), "--key-file", str(key)]) == 1
    assert capsys.readouterr().out == "empty: nothing to verify\n"


@pytest.mark.parametrize(
    ("part", "said"), [(slice(1, None), "nothing before seq 1"), (slice(0, -1), "no end after seq 4")]
)
def test_a_piece_is_good_unless_the_whole_is_asked_for(
    part: slice, said: str, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "a"
    lines = write(log, key, 8)
    command = ["audit", "verify", str(log), "--key-file", str(key)]
    assert cli.main([*command, "--whole"]) == 0
    log.write_text("".join(f"{line}\n" for line in lines[part]))
    assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main([*command, "--whole"]) == 1
    out = capsys.readouterr().out
    assert said in out
    assert out.endswith("NOT whole: a beginning or an end is not there\n")


def test_what_cannot_be_known_is_said(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A head that was rotated away, an end of a writer that was killed: not wrong, and not hidden."""
    log = tmp_path / "audit.jsonl"
    lines = write(log, key)
    log.write_text("".join(f"{line}\n" for line in lines[1:-1]))
    assert cli.main(["audit", "verify", str(log), "--key-file", str(key)]) == 0
    said = capsys.readouterr().out
    assert "its beginning is not there" in said
    assert "no end" in said


def test_files_of_a_rotation(key: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    sinks = [{"kind": "file", "path": str(log), "max_bytes": 4096, "keep": 9}]
    audit = Audit(Settings.model_validate({"sinks": sinks, "chain_key_file": str(key)}), Metrics())
    for i in range(40):
        audit.record(step(4, caller=f"c{i}"))
        audit_flush(audit)
    audit.close()
    files = [*sorted(tmp_path.glob("audit.jsonl.*"), key=lambda f: -int(f.suffix[1:])), log]
    assert len(files) > 2
    command = ["audit", "verify", *map(str, files), "--key-file", str(key)]
    assert cli.main(command) == 0
    assert cli.main([*command[:2], *map(str, files[::-1]), *command[-2:]]) == 1


def test_a_receiver_that_hangs_keeps_no_chain_from_its_end(key: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    with receiving(held=True) as stuck:
        to = {"kind": "otlp", "to": {"url": stuck.url}}
        sinks = [to, {"kind": "file", "path": str(log)}, {**to, "name": "other"}]
        audit = Audit(Settings.model_validate({"sinks": sinks, "chain_key_file": str(key)}), Metrics())
        audit.record(step(4))
        stuck.until(lambda r: len(r.requests) == 2)
        audit.close(0.5)
    assert json.loads(log.read_text().splitlines()[-1])["event"] == chain.END


def audit_flush(audit: Audit) -> None:
    """Each event a write of its own."""
    import time

    while any(delivery._queue for delivery in audit._deliveries):
        time.sleep(0.001)


def test_keys_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    with pytest.raises(ConfigError, match="less than 16 bytes"):
        chain.key_of(tmp_path / "short", "audit.chain_key_file")
    with pytest.raises(ConfigError, match="cannot read the secret"):
        chain.key_of(tmp_path / "absent", "audit.chain_key_file")
    assert cli.main(["audit", "verify", str(tmp_path / "absent"), "--key-file", str(tmp_path / "short")]) == 2


def test_a_caller_cannot_write_a_chain(key: Path, tmp_path: Path) -> None:
    """Names that callers choose are cut out of no line: JSON escapes their quotes."""
    name = '","chain":{"writer":"0000000000000000","seq":0,"prev":"","mac":"00000000000000000000000000000000"}}'
    log = tmp_path / "audit.jsonl"
    audit = Audit(Settings(file=log, chain_key_file=key), Metrics())
    audit.record(step(4, caller=name))
    audit.close()
    verdict = verify(log.read_text().splitlines())
    assert verdict.good
    assert len(verdict.writers) == 1
