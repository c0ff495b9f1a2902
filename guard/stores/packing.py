"""Between the engine's words and the bytes that the scripts in Valkey read and write. All little-endian.

A recent row: position (float32 each), embedding (int8 each), its scale (float32), label (int32, `rings.told`),
confidence (float32).
"""

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from guard.evidence import Evidence
from guard.stores.overlap import split
from guard.stores.rings import told, untold
from guard.types import Alert, Component, Kept, Level, Match, Neighbour, Past, Recent, Sketch, Update

BUCKETS_A_PAGE, BUCKET, HEAD, RECENT = 64, 64, 44, 256
_STEPS = 127.0
_HEAD = struct.Struct("<dddi8s8s")
_EVIDENCE = struct.Struct("<5d")
_PLACE = np.dtype([("page", "<u4"), ("offset", "<u2"), ("tag", "<u4")])

Words = list[bytes | str | float]


def places(hashes: NDArray[np.uint64], buckets: int) -> bytes:
    """Where in the index each hash is: page, offset, tag."""
    bucket, tags = split(hashes, buckets)
    packed = np.zeros(len(hashes), dtype=_PLACE)
    packed["page"], packed["offset"] = bucket // BUCKETS_A_PAGE, bucket % BUCKETS_A_PAGE * BUCKET
    packed["tag"] = tags
    return packed.tobytes()


def match_of(sketch: Sketch, reply: Sequence[bytes | int]) -> Match:
    """One row's reply: number, whether a duplicate, then overlap and row of each neighbour."""
    number = int(reply[0])
    if reply[1]:
        return Match(sketch.hashes.size, duplicate=True, number=number)
    near = tuple(_neighbour(int(overlap), bytes(row)) for overlap, row in zip(reply[2::2], reply[3::2], strict=True))
    return Match(near[0].overlap if near else 0, number=number, neighbours=near)


def _neighbour(overlap: int, row: bytes) -> Neighbour:
    number, _, component, label, owner, _ = _HEAD.unpack_from(row)
    position = np.frombuffer(row, dtype="<f4", offset=HEAD).astype(np.float32)
    return Neighbour(int(number), overlap, position, int(component), label, owner)


def evidence_of(packed: bytes) -> Evidence:
    """Count and log sums."""
    count, *sums = _EVIDENCE.unpack_from(packed)
    return Evidence(int(count), tuple(sums))


def component_of(packed: bytes) -> Component:
    """A cluster; an unwritten one has one row."""
    if not packed:
        return Component()
    (rows,) = struct.unpack_from("<d", packed, 40)
    return Component(evidence_of(packed), int(rows), max(1, (len(packed) - 48) // 8))


def fields_of(reply: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat HGETALL."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


def past_of(fields: dict[bytes, bytes], recent: Recent | None = None) -> Past:
    """A caller or cohort; Past() where nothing is known."""
    if not fields:
        return Past()
    names = [(key[:2], key[2:].decode(), value) for key, value in fields.items()]
    return Past(
        evidence={name: evidence_of(value) for kind, name, value in names if kind == b"e:"},
        alert=_alert_of(fields),
        since=float(fields[b"since"]),
        rows=int(fields[b"rows"]),
        judged={name: int(value) for kind, name, value in names if kind == b"j:"},
        recent=Past().recent if recent is None else recent,
    )


def _alert_of(fields: dict[bytes, bytes]) -> Alert:
    level, acting, held = (int(fields.get(name, b"0")) for name in (b"level", b"acting", b"held"))
    return Alert(Level(level), float(fields.get(b"until", b"0")), Level(acting), held)


def record(width: int, embedded: int) -> "np.dtype[np.void]":
    """A recent row."""
    return np.dtype([
        ("position", "<f4", (width,)), ("embedding", "i1", (embedded,)),
        ("scale", "<f4"), ("label", "<i4"), ("confidence", "<f4"),
    ])  # fmt: skip


def pack_recent(rows: Sequence[Kept]) -> bytes:
    """Rows of one shape, of which the latest are enough."""
    rows = rows[-RECENT:]
    packed = np.zeros(len(rows), dtype=record(len(rows[0].position), len(rows[0].embedding)))
    embeddings = np.stack([row.embedding for row in rows])
    scales = np.abs(embeddings).max(axis=1, initial=0.0) / _STEPS
    packed["position"] = np.stack([row.position for row in rows])
    packed["embedding"] = np.rint(embeddings / np.where(scales > 0, scales, 1.0)[:, None])
    packed["scale"], packed["label"] = scales, [told(row) for row in rows]
    packed["confidence"] = [row.confidence for row in rows]
    return packed.tobytes()


def unpack_recent(packed: bytes, width: int, embedded: int) -> Recent:
    """What `pack_recent` wrote."""
    rows = np.frombuffer(packed, dtype=record(width, embedded))
    labels, heard = untold(rows["label"])
    return Recent(
        rows["position"].astype(np.float32),
        rows["embedding"] * rows["scale"][:, None].astype(np.float32),
        labels,
        rows["confidence"].astype(np.float64),
        heard,
    )


def _doubles(values: Sequence[float]) -> bytes:
    return np.asarray(values, dtype="<f8").tobytes()


def pack_update(update: Update, cohorts: tuple[str, ...]) -> Words:
    """The arguments of the script `credit` from `restart` on."""
    alert, answered = update.alert, update.answered
    shape = (len(answered[0].position), len(answered[0].embedding)) if answered else (0, 0)
    evidence = [(name, _doubles(values)) for name, values in update.evidence.items() if values]
    judged = [(name, rows, _doubles((p,))) for name, (rows, p) in update.judged.items()]
    grown = [(number, _doubles(values)) for number, values in update.components.items()]
    return [
        int(update.restart),
        "" if alert is None else int(alert.level),
        0 if alert is None else repr(float(alert.until)),
        "" if update.acting is None else int(update.acting),
        "" if update.held is None else update.held,
        *shape,
        pack_recent(answered) if answered else b"",
        *_listed([(name,) for name in cohorts]),
        *_listed(evidence),
        *_listed(judged),
        *_listed(grown),
        *_listed(list(update.joins.items())),
        *_listed([(row.number, row.label) for row in answered]),
    ]


def _listed(items: Sequence[tuple[bytes | str | float, ...]]) -> Iterator[bytes | str | float]:
    yield len(items)
    for item in items:
        yield from item
