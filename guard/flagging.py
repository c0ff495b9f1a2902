"""Which rows of a query were flagged, by which stages, and what of them is kept: their digests, and perhaps themselves.

A finding on rows flags those that fired. A finding on the caller flags every row of the query: he is alarming by then;
of his level, from `quarantine.from_level` on. What is said of a cohort flags nothing: one bad caller must not take his
neighbours' data away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guard.content import digests, encoded_digests
from guard.profile import Layout, Profile
from guard.settings import Quarantine
from guard.techniques import ALERT, COHORT
from guard.types import Array, Finding, Flagged, Level, Mode


@dataclass(frozen=True, slots=True, eq=False)
class Flags:
    """The flagged rows of one query, in their order.

    shape:   of one row with the channel last; empty for encoded images.
    layout:  the profile's. datatype: the inspected input's, on the wire.
    kept:    the places of the rows that are kept themselves, in one of the next two; empty where that is not asked for.
    x:       (K, ...) those rows, in the model's own layout and dtype. encoded: those images, as they came.
    """

    rows: tuple[Flagged, ...] = ()
    shape: tuple[int, ...] = ()
    layout: Layout = "vector"
    datatype: str = ""
    kept: tuple[int, ...] = ()
    x: Array | None = None
    encoded: tuple[bytes, ...] = ()

    @property
    def nbytes(self) -> int:
        """How large the kept rows are."""
        return sum(map(len, self.encoded)) + (0 if self.x is None else self.x.nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The inspected input of one query: (N, ...) in the model's own layout; encoded images as an array of bytes."""

    x: Array
    profile: Profile

    @property
    def encoded(self) -> bool:
        """Whether rows are encoded images."""
        return self.x.dtype == object

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row with the channel last."""
        space, shape = self.profile.space, self.x.shape[1:]
        if space.layout in {"flat", "encoded"}:
            return () if space.layout == "encoded" and self.encoded else space.image_shape or shape
        if space.layout == "nchw":
            return (*shape[1:], shape[0])
        return (*shape, 1) if space.layout == "nhw" else shape

    def digests(self, rows: Sequence[int]) -> list[str]:
        """Of these rows."""
        if self.encoded:
            return encoded_digests(_image(self.x[row]) for row in rows)
        return digests(self.x[list(rows)], channels_first=self.profile.space.layout == "nchw")


def stages_by_row(
    findings: Sequence[Finding], rows: int, rule: Quarantine, *, enforced: bool
) -> Mapping[int, tuple[str, ...]]:
    """What fired on each flagged row; enforced: whether enforcement is real for this caller."""
    found: dict[int, list[str]] = {}
    for finding in findings:
        if _counts(finding, rule, enforced=enforced):
            for row in _hit(finding, rows):
                found.setdefault(row, []).append(finding.stage)
    return {row: tuple(found[row]) for row in sorted(found)}


def _counts(finding: Finding, rule: Quarantine, *, enforced: bool) -> bool:
    if finding.stage == ALERT:  # it fires where something is done about the level, which is another question
        counts = bool(finding.scores) and finding.scores[0] >= Level[rule.from_level.upper()]
    else:
        counts = finding.fired and not finding.stage.startswith(COHORT)
    return counts and (rule.shadow or (enforced and finding.mode is Mode.ENFORCE))


def _hit(finding: Finding, rows: int) -> Sequence[int]:
    if finding.stage == ALERT or len(finding.p_values) != rows:  # of the caller
        return range(rows)
    hit: list[int] = np.flatnonzero(np.asarray(finding.p_values) <= finding.threshold).tolist()
    return hit


def flag(
    content: Content, findings: Sequence[Finding], rule: Quarantine, *, enforced: bool, keep: bool, known: Flags
) -> Flags:
    """The query's flags.

    keep:  the rows themselves are asked for, too.
    known: what was flagged before the model had answered: its digests are not computed again.
    """
    by_row = stages_by_row(findings, len(content.x), rule, enforced=enforced)
    if not by_row:
        return Flags()
    if by_row == {flagged.row: flagged.stages for flagged in known.rows} and keep == bool(known.kept):
        return known
    had = {flagged.row: flagged.sha256 for flagged in known.rows}
    lacking = [row for row in by_row if row not in had]
    had.update(zip(lacking, content.digests(lacking), strict=True))
    profile = content.profile
    kept = _fitting(content.x, tuple(by_row), rule.max_item_bytes) if keep else ()
    return Flags(
        rows=tuple(Flagged(row, had[row], stages) for row, stages in by_row.items()),
        shape=content.shape,
        layout=profile.space.layout,
        datatype=profile.datatype,
        kept=kept,
        x=content.x[list(kept)] if kept and not content.encoded else None,
        encoded=tuple(_image(content.x[row]) for row in kept) if content.encoded else (),
    )


def _fitting(x: Array, rows: tuple[int, ...], max_bytes: int) -> tuple[int, ...]:
    """The first of them that are not too large together."""
    sizes = [len(_image(x[row])) if x.dtype == object else x[row].nbytes for row in rows]
    return rows[: int(np.searchsorted(np.cumsum(sizes), max_bytes, side="right"))]


def _image(row: Any) -> bytes:
    return bytes(row.ravel()[0] if isinstance(row, np.ndarray) else row)
