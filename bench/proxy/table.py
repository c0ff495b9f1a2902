"""Figures to words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BEGIN, END, TITLE = "<!-- bench.proxy: begin -->", "<!-- bench.proxy: end -->", "What a proxy costs a call"
DIRECT = "no proxy"
_CONTROL, _PLAIN, _INSPECTING, _FAST = "nginx", "grpc.aio", "Guard, inspect", "Guard, fast plane, inspect"


def ratios(own: Sequence[Mapping[str, float]], control: Sequence[Mapping[str, float]], key: str) -> tuple[float, ...]:
    """Quartiles over rounds, pair by pair."""
    pairs = zip(own, control, strict=True)
    return tuple(map(float, np.quantile([one[key] / other[key] for one, other in pairs], (0.25, 0.5, 0.75))))


def middle(of: Sequence[Mapping[str, float]], key: str) -> float:
    """The median over rounds."""
    return float(np.median([one[key] for one in of]))


def _ratio(found: tuple[float, ...]) -> str:
    low, mid, high = found
    return f"{mid:.2f} ({low:.2f} to {high:.2f})"


@dataclass(frozen=True, slots=True)
class Bar:
    """What was asked for of one peer against another, at some shapes; of more than one call in flight.

    bound: of the ratio of processor time, which is at most that, or at least (`least`).
    """

    what: str
    own: str
    other: str
    bound: float
    least: bool = False
    shapes: tuple[str, ...] = ()


_SMALL, _LARGE = ("3 KB", "12 KB"), ("150 KB", "602 KB")
BARS = (
    Bar("fast plane, inspecting, over nginx", _FAST, "nginx", 1.0, shapes=_SMALL),
    Bar("fast plane, inspecting, over tuned nginx", _FAST, "nginx, tuned", 1.25, shapes=_LARGE),
    Bar("fast plane, purifying, over nginx", "Guard, fast plane, purify", "nginx", 1.5, shapes=_SMALL),
    Bar("fast plane, purifying, over tuned nginx", "Guard, fast plane, purify", "nginx, tuned", 1.5, shapes=_LARGE),
    Bar("grpc.aio that passes bytes through over the fast plane, inspecting", _PLAIN, _FAST, 8.0, True, _SMALL[:1]),
    Bar("grpcio plane, inspecting, over grpc.aio that passes bytes through", _INSPECTING, _PLAIN, 1.1),
    Bar("Envoy + ext_proc over the grpcio plane, inspecting", "Envoy + ext_proc", _INSPECTING, 2.0, least=True),
)
LATENCY_MS = {"3 KB": 0.4, "602 KB": 1.2}
"""What the fast plane may add to the median of a call that goes straight to the upstream, one at a time."""


def bars(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was asked for, of the shapes and peers that were run."""
    judged = []
    for shape, told in found["shapes"].items():
        for at_once, by_peer in told["again"].items():
            if int(at_once) > 1:
                judged += [
                    _judged(f"{shape}, {at_once} in flight: {bar.what}", bar, by_peer)
                    for bar in BARS
                    if {bar.own, bar.other} <= set(by_peer) and shape in (bar.shapes or (shape,))
                ]
            elif shape in LATENCY_MS and {_FAST, DIRECT} <= set(by_peer):
                judged.append(_added(shape, by_peer))
    return judged


def _judged(what: str, bar: Bar, by_peer: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    found = ratios(by_peer[bar.own], by_peer[bar.other], "cpu_us")
    held = found[1] >= bar.bound if bar.least else found[1] <= bar.bound
    wanted = f"at {'least' if bar.least else 'most'} {bar.bound:g}"
    return {"what": what, "wanted": wanted, "measured": _ratio(found), "held": held}


def _added(shape: str, by_peer: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    pairs = zip(by_peer[_FAST], by_peer[DIRECT], strict=True)
    low, mid, high = np.quantile([(own["p50_us"] - other["p50_us"]) / 1e3 for own, other in pairs], (0.25, 0.5, 0.75))
    return {
        "what": f"{shape}, 1 in flight: ms that the fast plane, inspecting, adds to the median call",
        "wanted": f"at most {LATENCY_MS[shape]:g}", "measured": f"{mid:.2f} ({low:.2f} to {high:.2f})",
        "held": bool(mid <= LATENCY_MS[shape]),
    }  # fmt: skip


def markdown(found: Mapping[str, Any]) -> str:
    """The page's part."""
    lines = [
        f"Made by `{found['made']['command']}`, seed 0, {found['made']['day']}, on {found['made']['machine']}.",
        "",
    ]
    if found["bars"]:
        lines += ["## What was asked for", "", "| what | wanted | measured | held |", "|---|---|---|---|"]
        lines += [
            f"| {one['what']} | {one['wanted']} | {one['measured']} | {'yes' if one['held'] else '**no**'} |"
            for one in found["bars"]
        ]
    for shape, told in found["shapes"].items():
        for at_once, by_peer in told["again"].items():
            lines += ["", f"## {shape}, {at_once} in flight", ""]
            lines += ["| proxy | CPU us a call | over nginx | calls a second | p50 us | p99 us | resident MB |"]
            lines += ["|---|---|---|---|---|---|---|"]
            for name, taken in by_peer.items():
                over = _ratio(ratios(taken, by_peer[_CONTROL], "cpu_us")) if _CONTROL in by_peer and middle(
                    taken, "cpu_us") else "-"  # fmt: skip
                resident = told["resident_mb"].get(name)
                lines.append(
                    f"| {name} | {middle(taken, 'cpu_us'):,.0f} | {over} | {middle(taken, 'rate'):,.0f} "
                    f"| {middle(taken, 'p50_us'):,.0f} | {middle(taken, 'p99_us'):,.0f} "
                    f"| {'-' if resident is None else f'{resident:,.0f}'} |"
                )
        if told["fresh"]:
            lines += ["", f"## {shape}, rows that are all different, 8 in flight", ""]
            lines += ["| proxy | CPU us a call | over inspecting alone |", "|---|---|---|"]
            for name, taken in told["fresh"].items():
                alone = told["fresh"].get(_INSPECTING)
                over = _ratio(ratios(taken, alone, "cpu_us")) if alone else "-"
                lines.append(f"| {name} | {middle(taken, 'cpu_us'):,.0f} | {over} |")
    return "\n".join(lines) + "\n"
