"""The audit log as a chain: each line carries a keyed digest of itself and of the line before it.

    "chain": {"writer": "f00c...", "seq": 17, "prev": "8a1b...", "mac": "c3d2..."}

Answers: lines that were changed, taken out, added or moved by who can write the file and does not have the key.
         A writer is one process's life at one place; its first line begins the chain, its last one ends it.
Source:  Schneier and Kelsey 1999, "Secure audit logs to support computer forensics", without keys that evolve: who
         steals the key can write the past anew. Keep what verifies elsewhere.
Not seen: that the end is missing of a writer that was killed; that a whole writer is missing, or a file.
Cost:    an HMAC-SHA256 and 150 bytes a line.
"""

import hmac
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from guard import config
from guard.settings import ConfigError

BEGIN, END = "guard.audit_begin", "guard.audit_end"
MIN_KEY_BYTES = 16
MAX_LINE_BYTES = 4 * 1024 * 1024
_MAC_CHARS = 32
_CHAIN = re.compile(
    rb',"chain":\{"writer":"([0-9a-f]{16})","seq":(0|[1-9][0-9]{0,18}),'
    rb'"prev":"([0-9a-f]{32}|)","mac":"([0-9a-f]{32})"\}\}$'
)


def _mac(key: bytes, writer: bytes, seq: int, prev: bytes, line: bytes) -> bytes:
    """Of a line as it is without its chain. Every part but the last has a length of its own, or an end."""
    said = b"%b:%d:%b:" % (writer, seq, prev)
    return hmac.digest(key, said + line, "sha256").hex()[:_MAC_CHARS].encode()


def key_of(file: Path, where: str) -> bytes:
    """What keys the chain. where: the key's path in the settings. Raises ConfigError."""
    key = (config.read_secret(file, "", {}) or "").encode()
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(where, f"the key has less than {MIN_KEY_BYTES} bytes")
    return key


class Chain:
    """One writer's. Lines get their places in the order in which they are linked, whether they are written or not."""

    def __init__(self, key: bytes) -> None:
        self._key, self._writer = key, secrets.token_hex(8).encode()
        self._seq, self._prev = 0, b""

    def link(self, line: str) -> str:
        """A line of JSON, an object with something in it, with its place in the chain."""
        raw = line.encode("ascii")
        mac = _mac(self._key, self._writer, self._seq, self._prev, raw)
        place = b'"writer":"%b","seq":%d,"prev":"%b","mac":"%b"' % (self._writer, self._seq, self._prev, mac)
        self._seq, self._prev = self._seq + 1, mac
        return (raw[:-1] + b',"chain":{' + place + b"}}").decode("ascii")

    def mark(self, event: str) -> str:
        """A line that says that the chain begins, or ends."""
        return self.link(json.dumps({"event": event}, separators=(",", ":")))


@dataclass
class Writer:
    """What was seen of one writer. begins, ends: whether its first and its last line are there."""

    lines: int = 0
    missing: int = 0
    moved: int = 0
    begins: bool = False
    ends: bool = False
    _next: int = 0
    _prev: bytes = b""

    def take(self, seq: int, prev: bytes, mac: bytes, event: bytes) -> None:
        """The next line, whose digest is good."""
        if self.lines == 0:
            self.begins = seq == 0
        elif seq < self._next:
            self.moved += 1
        elif seq > self._next:
            self.missing += seq - self._next
        elif prev != self._prev:
            self.moved += 1
        self.lines += 1
        self._next, self._prev = max(self._next, seq + 1), mac
        self.ends = event == END.encode()


@dataclass
class Verdict:
    """What was seen of a log. bare: lines without a chain. altered: lines whose digest is wrong, or that are cut."""

    writers: dict[str, Writer] = field(default_factory=dict)
    bare: int = 0
    altered: list[int] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with what is there; what is not there at its ends is not known."""
        return not (self.bare or self.altered or any(one.missing or one.moved for one in self.writers.values()))


_EVENT = re.compile(rb'"event":"([a-z_.]+)"')
MAX_TOLD, _SHOWN = 1000, 10


def verify(lines: Iterable[bytes], key: bytes) -> Verdict:
    """Look at a log's lines, of its files in the order in which they were written."""
    verdict = Verdict()
    for number, line in enumerate(lines, start=1):
        raw = line.rstrip(b"\n")
        if not raw:
            continue
        found = _CHAIN.search(raw)
        if found is None:
            verdict.bare += 1
            continue
        writer, seq, prev, mac = found.groups()
        plain = raw[: found.start()] + b"}"
        if not hmac.compare_digest(_mac(key, writer, int(seq), prev, plain), mac):
            if len(verdict.altered) < MAX_TOLD:
                verdict.altered.append(number)
            continue
        event = _EVENT.search(plain)
        one = verdict.writers.setdefault(writer.decode(), Writer())
        one.take(int(seq), prev, mac, b"" if event is None else event[1])
    return verdict


def told(verdict: Verdict) -> Iterator[str]:
    """In words, a line each."""
    for name, one in verdict.writers.items():
        said = [f"{one.lines} lines"]
        said += [] if one.begins else ["its beginning is not there"]
        said += [] if one.ends else ["no end: it still writes, was killed, or its end was taken"]
        said += [f"{one.missing} missing: taken out, or never written"] if one.missing else []
        said += [f"{one.moved} not where they were"] if one.moved else []
        yield f"writer {name}: {', '.join(said)}"
    if verdict.bare:
        yield f"{verdict.bare} lines without a chain"
    if verdict.altered:
        more = " ..." if len(verdict.altered) > _SHOWN else ""
        yield f"altered: lines {', '.join(map(str, verdict.altered[:_SHOWN]))}{more}"
