"""Ratios now beside ratios that were recorded: which have become worse beyond noise.

All are costs over a control of the same run, by round: less is better. Noise is what the rounds of both runs scatter
by: the standard error of a median, from the middle half, in logarithms, and never less than a usual one, since rounds
of one run are more alike than runs are. A change counts where it is beyond `_SIGMAS` of that and beyond `_LEAST`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

Ratios = Mapping[str, Sequence[float]]
"""By name, one a round."""

_SIGMAS, _LEAST = 3.0, 0.10
_USUAL = 0.03
_OF_NORMAL, _OF_MEDIAN = 1.349, 1.2533  # middle half over sigma; error of a median over that of a mean


class Verdict(StrEnum):
    """What became of a ratio."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "same"
    NEW = "new"
    GONE = "not measured"


@dataclass(frozen=True, slots=True)
class Compared:
    """recorded, now: medians; None where there is none. change: of the one over the other. noise: what is within it."""

    name: str
    recorded: float | None
    now: float | None
    noise: float
    verdict: Verdict

    @property
    def change(self) -> float | None:
        """+0.1: a tenth more."""
        return None if self.recorded is None or self.now is None else self.now / self.recorded - 1.0


def compared(recorded: Ratios, now: Ratios) -> list[Compared]:
    """Every ratio of either, in the order of what is recorded."""
    return [_compare(name, recorded.get(name), now.get(name)) for name in dict.fromkeys([*recorded, *now])]


def _compare(name: str, recorded: Sequence[float] | None, now: Sequence[float] | None) -> Compared:
    if not recorded or not now:
        before, after = (float(np.median(one)) if one else None for one in (recorded, now))
        return Compared(name, before, after, 0.0, Verdict.GONE if recorded else Verdict.NEW)
    before, after = float(np.median(recorded)), float(np.median(now))
    noise = max(math.log1p(_LEAST), _SIGMAS * math.hypot(_error(recorded), _error(now)))
    change = math.log(after / before)
    verdict = Verdict.WORSE if change > noise else Verdict.BETTER if change < -noise else Verdict.SAME
    return Compared(name, before, after, math.expm1(noise), verdict)


def _error(values: Sequence[float]) -> float:
    """Of the median, in logarithms."""
    low, high = np.quantile(np.log(values), (0.25, 0.75))
    sigma = float(high - low) / _OF_NORMAL * _OF_MEDIAN / math.sqrt(len(values))
    return max(sigma, _USUAL)


def worse(rows: Iterable[Compared]) -> list[str]:
    """The names of those that have become worse."""
    return [row.name for row in rows if row.verdict is Verdict.WORSE]


def table(rows: Sequence[Compared]) -> str:
    """What changed first; aligned for a terminal."""
    order = list(Verdict)
    cells = [("what", "recorded", "now", "change", "noise", "verdict")]
    for row in sorted(rows, key=lambda row: order.index(row.verdict)):
        change, noise = ("-", "-") if row.change is None else (f"{row.change:+.0%}", f"{row.noise:.0%}")
        verdict = row.verdict.upper() if row.verdict is Verdict.WORSE else row.verdict
        cells.append((row.name, _number(row.recorded), _number(row.now), change, noise, verdict))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i in {0, 5} else cell.rjust(width) for i, (cell, width) in enumerate(zip(
            line, widths, strict=True))).rstrip() for line in cells
    )  # fmt: skip


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
