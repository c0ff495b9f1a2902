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
from collections.abc import Iterable, Iterator, Sequence
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
    key = (config.read_secret(file, "", {}, where=where) or "").encode()
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(where, f"the key in {file} has less than {MIN_KEY_BYTES} bytes")
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
    """What was seen of one writer. first, last: where its first and its last line are; ends: whether it said so."""

    key: bytes
    first: str
    first_seq: int
    lines: int = 0
    missing: int = 0
    moved: int = 0
    ends: bool = False
    last: str = ""
    _next: int = 0
    _prev: bytes = b""

    @property
    def begins(self) -> bool:
        """Whether its beginning is there."""
        return self.first_seq == 0

    def take(self, where: str, seq: int, prev: bytes, mac: bytes, event: bytes) -> str:
        """The next line, whose digest is good. -> what is wrong with its place, empty: nothing."""
        wrong = self._wrong(seq, prev)
        self.lines += 1
        if self.lines == 1 or seq >= self._next:
            self._next, self._prev, self.last = seq + 1, mac, where
            self.ends = event == END.encode()
        return wrong

    def _wrong(self, seq: int, prev: bytes) -> str:
        gap = seq - self._next
        if self.lines == 0 or (gap == 0 and prev == self._prev):
            return ""
        follows = f"seq {seq} follows seq {self._next - 1}"
        if gap > 0:
            self.missing += gap
            return f"{follows}: {gap} missing, taken out or never written"
        self.moved += 1
        return f"{follows}: not where it was, or there twice"

    def told(self) -> str:
        """In words."""
        said = [f"{self.lines} lines, {self.first} to {self.last}"]
        said += [] if self.begins else [f"its beginning is not there: nothing before seq {self.first_seq}"]
        end = f"no end after seq {self._next - 1}: it still writes, was killed, or its end was taken"
        said += [] if self.ends else [end]
        said += [f"{self.missing} missing"] if self.missing else []
        said += [f"{self.moved} not where they were"] if self.moved else []
        return ", ".join(said)


MAX_TOLD = 20


@dataclass
class Verdict:
    """What was seen of a log. bare: lines without a chain. altered: lines whose digest is wrong.

    wrong: the first MAX_TOLD things that are wrong, and where.
    """

    writers: dict[str, Writer] = field(default_factory=dict)
    lines: int = 0
    bare: int = 0
    altered: int = 0
    wrong: list[str] = field(default_factory=list)
    untold: int = 0

    @property
    def good(self) -> bool:
        """Whether there is something, and nothing wrong with it; what is not there at its ends is not known."""
        return self.lines > 0 and not self.wrong

    @property
    def whole(self) -> bool:
        """Whether every writer's beginning and end are there."""
        return self.lines > 0 and all(one.begins and one.ends for one in self.writers.values())

    def tell(self, where: str, what: str) -> None:
        """Note what is wrong with a line."""
        if len(self.wrong) < MAX_TOLD:
            self.wrong.append(f"{where}: {what}")
        else:
            self.untold += 1


_EVENT = re.compile(rb'"event":"([a-z_.]+)"')


def verify(lines: Iterable[tuple[str, bytes]], keys: Sequence[bytes]) -> Verdict:
    """Look at a log's lines, of its files in the order in which they were written, each with where it is."""
    verdict = Verdict()
    for where, line in lines:
        raw = line.rstrip(b"\n")
        if raw:
            verdict.lines += 1
            _look(verdict, where, raw, keys)
    return verdict


def _look(verdict: Verdict, where: str, raw: bytes, keys: Sequence[bytes]) -> None:
    found = _CHAIN.search(raw)
    if found is None:
        verdict.bare += 1
        verdict.tell(where, "without a chain, or cut")
        return
    writer, seq, prev, mac = found.groups()
    plain, name = raw[: found.start()] + b"}", writer.decode()
    known = verdict.writers.get(name)
    tried = keys if known is None else (known.key,)
    key = next((key for key in tried if hmac.compare_digest(_mac(key, writer, int(seq), prev, plain), mac)), None)
    if key is None:
        verdict.altered += 1
        verdict.tell(where, "altered, or of another key")
        return
    one = verdict.writers.setdefault(name, Writer(key, where, int(seq)))
    event = _EVENT.search(plain)
    wrong = one.take(where, int(seq), prev, mac, b"" if event is None else event[1])
    if wrong:
        verdict.tell(where, f"writer {name}: {wrong}")


def told(verdict: Verdict) -> Iterator[str]:
    """In words, a line each."""
    yield from verdict.wrong
    if verdict.untold:
        yield f"... and {verdict.untold} more"
    for name, one in verdict.writers.items():
        yield f"writer {name}: {one.told()}"
    if verdict.bare:
        yield f"{verdict.bare} lines without a chain"
    if verdict.altered:
        yield f"{verdict.altered} lines altered"
