"""Plots as inline SVG: bars of success, and curves over the rows sent."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from adversary.report import AttackPart, Curve, ExtractionPart, Share

_WIDTH = 360
_ROW = 44  # of one attack's two bars
_BAR = 9
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 34
_HEIGHT = 200
_TICKS = (0, 25, 50, 75, 100)
_DECADE = 10


def bars(attacks: Sequence[AttackPart]) -> str:
    """Success by attack, bare above guarded, with whiskers."""
    height = _ROW * len(attacks) + 22
    inner = _WIDTH - 2 * _RIGHT

    def x(share: float) -> float:
        return _RIGHT + share * inner

    grid = [
        f'<line class="axis" x1="{x(tick / 100):.1f}" x2="{x(tick / 100):.1f}" y1="0" y2="{height - 18}"/>'
        f'<text class="dim" x="{x(tick / 100):.1f}" y="{height - 4}" text-anchor="{_anchor(tick)}">{tick} %</text>'
        for tick in _TICKS
    ]
    rows = [_pair(attack, _ROW * i, x) for i, attack in enumerate(attacks)]
    label = "Attack success with 95 % intervals, bare and guarded"
    return _svg(_WIDTH, height, label, "".join(grid + rows))


def _anchor(tick: int) -> str:
    return {_TICKS[0]: "start", _TICKS[-1]: "end"}.get(tick, "middle")


def _pair(attack: AttackPart, top: float, x: Callable[[float], float]) -> str:
    name = f'<text x="{x(0):.1f}" y="{top + 13}">{escape(attack.title)}</text>'
    sides = (("bare", attack.control.success), ("guarded", attack.guarded.success))
    return name + "".join(_bar(kind, share, top + 18 + i * (_BAR + 2), x) for i, (kind, share) in enumerate(sides))


def _bar(kind: str, share: Share, y: float, x: Callable[[float], float]) -> str:
    if share.rate is None:
        return ""
    low, high = share.interval_95
    middle = y + _BAR / 2
    return (
        f'<rect class="{kind}" x="{x(0):.1f}" y="{y}" width="{max(0.5, x(share.rate) - x(0)):.1f}" height="{_BAR}">'
        f"<title>{kind}: {100 * share.rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})</title></rect>"
        f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle}" y2="{middle}"/>'
    )


def curves(attack: AttackPart) -> str:
    """Share of victims by rows sent, on a logarithmic axis: reached bare and guarded, and noticed."""
    lines = (
        ("bare", attack.control.success_by_queries),
        ("guarded", attack.guarded.success_by_queries),
        ("noticed", attack.guarded.noticed_by_queries),
    )
    frame = _Frame(max(attack.budget + 1, *(step for _, curve in lines for step in curve.queries), 2))
    drawn = [f'<path class="{kind}" d="{_steps(curve, frame)}"/>' for kind, curve in lines]
    label = f"{attack.title}: per cent of victims reached bare and guarded, and noticed, by rows sent"
    return _svg(_WIDTH, _HEIGHT, label, "".join((*frame.grid, *drawn)))


def copies(part: ExtractionPart) -> str:
    """Agreement of the copies by rows sent, bare and guarded, a line a seed; and when the thief was first noticed."""
    frame = _Frame(max(part.budget + 1, *(point.sent for point in part.control.copies), 2))
    drawn = []
    for kind, side in (("bare", part.control), ("guarded", part.guarded)):
        for seed in dict.fromkeys(point.seed for point in side.copies):
            points = [(point.sent, point.agreement.rate or 0.0) for point in side.copies if point.seed == seed]
            drawn.append(f'<path class="{kind}" d="{_line(points, frame)}"/>')
    at = part.guarded.watched.queries_to_detection.median
    if at is not None:
        x = f"{frame.x(at):.1f}"
        drawn.append(f'<path class="noticed" d="M{x} {frame.y(0.0):.1f}V{frame.y(1.0):.1f}"/>')
    label = f"{part.title}: per cent of unseen inputs on which the copy agrees with the model, by rows sent"
    return _svg(_WIDTH, _HEIGHT, label, "".join((*frame.grid, *drawn)))


@dataclass(frozen=True, slots=True)
class _Frame:
    """A logarithmic axis of rows sent, from 1 to `most`, and per cent upwards."""

    most: int

    def x(self, queries: float) -> float:
        return _LEFT + math.log(max(1.0, queries)) / math.log(self.most) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, share: float) -> float:
        return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)

    @property
    def grid(self) -> list[str]:
        right = _WIDTH - _RIGHT
        levels = [(tick, self.y(tick / 100)) for tick in _TICKS]
        lines = [
            f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="dim" x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>'
            for tick, y in levels
        ]
        lines += [
            f'<text class="dim" x="{min(self.x(tick), _WIDTH - 20):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">'
            f"{tick:,}</text>"
            for tick in _decades(self.most)
        ]
        return [*lines, f'<text class="dim" x="{right}" y="{_HEIGHT - 3}" text-anchor="end">rows sent</text>']


def _decades(most: int) -> list[int]:
    return [_DECADE**power for power in range(int(math.log10(most)) + 1)]


def _steps(curve: Curve, frame: _Frame) -> str:
    pairs = zip(curve.queries, curve.share, strict=True)
    steps = "".join(f"H{frame.x(at):.1f}V{frame.y(share):.1f}" for at, share in pairs)
    return f"M{frame.x(1):.1f} {frame.y(0.0):.1f}{steps}H{frame.x(frame.most):.1f}"


def _line(points: Sequence[tuple[int, float]], frame: _Frame) -> str:
    """Straight from copy to copy; the last one stays."""
    corners = [f"{frame.x(sent):.1f} {frame.y(share):.1f}" for sent, share in points]
    return f"M{'L'.join(corners)}H{frame.x(frame.most):.1f}"


def _svg(width: int, height: int, label: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{inside}</svg>"
    )
