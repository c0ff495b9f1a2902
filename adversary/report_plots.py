"""Plots as inline SVG: bars of success, and curves over the rows sent."""

import math
from collections.abc import Callable, Sequence
from html import escape

from adversary.report import AttackPart, Curve, Share

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
    most = max(attack.budget + 1, *(step for _, curve in lines for step in curve.queries), 2)
    last = math.log(most)

    def x(queries: float) -> float:
        return _LEFT + math.log(max(1.0, queries)) / last * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)

    grid = [
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick / 100):.1f}" y2="{y(tick / 100):.1f}"/>'
        f'<text class="dim" x="{_LEFT - 4}" y="{y(tick / 100) + 4:.1f}" text-anchor="end">{tick}</text>'
        for tick in _TICKS
    ]
    grid += [
        f'<text class="dim" x="{min(x(tick), _WIDTH - 20):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{tick:,}</text>'
        for tick in _decades(most)
    ]
    grid.append(f'<text class="dim" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 3}" text-anchor="end">rows sent</text>')
    drawn = [f'<path class="{kind}" d="{_steps(curve, most, x, y)}"/>' for kind, curve in lines]
    label = f"{attack.title}: per cent of victims reached bare and guarded, and noticed, by rows sent"
    return _svg(_WIDTH, _HEIGHT, label, "".join(grid + drawn))


def _decades(most: int) -> list[int]:
    return [_DECADE**power for power in range(int(math.log10(most)) + 1)]


def _steps(curve: Curve, most: int, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    steps = "".join(f"H{x(at):.1f}V{y(share):.1f}" for at, share in zip(curve.queries, curve.share, strict=True))
    return f"M{x(1):.1f} {y(0.0):.1f}{steps}H{x(most):.1f}"


def _svg(width: int, height: int, label: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{inside}</svg>"
    )
