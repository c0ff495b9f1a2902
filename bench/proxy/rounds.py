"""Everything takes its turn, round after round, so that what else the machine does falls on all alike."""

import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.proxy import load, peers, upstream
from bench.proxy.load import Took
from bench.proxy.peers import Peer, Start
from bench.proxy.shapes import Shape
from bench.proxy.table import DIRECT

SEED = 0
STAGED = (
    "Guard, inspect",
    "Guard, monitors",
    "Guard, monitors, Valkey",
    "Guard, purify",
    "Guard, fast plane, inspect",
    "Guard, fast plane, purify",
)
"""Those that are asked for rows that are all different as well."""


@dataclass(frozen=True, slots=True)
class How:
    """rounds: of everything. at_once: calls in flight. share: of a shape's calls. names: of peers."""

    rounds: int = 5
    at_once: tuple[int, ...] = (1, 8, 32)
    share: float = 1.0
    names: tuple[str, ...] = tuple(peers.ALL)


@dataclass(slots=True)
class Measured:
    """Of one shape. again, fresh: by calls in flight and peer, one a round. resident_mb: by peer, at the end."""

    again: dict[int, dict[str, list[Took]]] = field(default_factory=dict)
    fresh: dict[str, list[Took]] = field(default_factory=dict)
    resident_mb: dict[str, float] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As data."""
        return {
            "again": {str(n): _told(found) for n, found in self.again.items()},
            "fresh": _told(self.fresh),
            "resident_mb": self.resident_mb,
        }


def _told(found: Mapping[str, Sequence[Took]]) -> dict[str, list[dict[str, float | None]]]:
    return {name: [asdict(one) for one in taken] for name, taken in found.items()}


def measured(shape: Shape, how: How) -> Measured:
    """One upstream, all peers in front of it. Raises Failed, Missing."""
    found, rng = Measured(), np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory(prefix="bench-proxy-") as scratch, ExitStack() as stack:
        directory = Path(scratch)
        port = stack.enter_context(upstream.start(directory, shape))
        starts: Mapping[str, Start] = {name: start for name, start in peers.ALL.items() if name in how.names}
        running = [stack.enter_context(start(directory, port, shape)) for start in starts.values()]
        body = directory / "body"
        message = shape.request(shape.images()[: shape.rows])
        body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
        for number in range(how.rounds + 1):  # the first warms up
            sys.stderr.write(f"{shape.name}: round {number} of {how.rounds}\n")
            _round(found if number else Measured(), shape, how, port, running[:: 1 if number % 2 else -1], body, rng)
        for peer in running:
            peer.check()
        found.resident_mb = {peer.name: load.resident_mb(peer.pids) for peer in running}
    return found


def _round(
    found: Measured, shape: Shape, how: How, port: int, running: Sequence[Peer], body: Path, rng: np.random.Generator
) -> None:  # fmt: skip
    for at_once in how.at_once:
        own = found.again.setdefault(at_once, {})
        for peer in (Peer(DIRECT, port, ()), *running):
            quick = peer.name in peers.QUICK or peer.name == DIRECT
            calls = max(
                2 * at_once, int(how.share * (shape.quick if quick else shape.slow) * (1 if at_once > 1 else 0.25))
            )
            own.setdefault(peer.name, []).append(load.again(peer.port, peer.pids, body, calls, at_once))
    calls = max(8, int(how.share * shape.slow * 0.5))
    for peer in running:
        if peer.name in STAGED:
            found.fresh.setdefault(peer.name, []).append(load.fresh(peer.port, peer.pids, shape, calls, 8, rng))
