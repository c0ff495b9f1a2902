"""Figures to words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BEGIN, END, TITLE = "<!-- bench.proxy: begin -->", "<!-- bench.proxy: end -->", "What a proxy costs a call"
_CONTROL, _PLAIN, _INSPECTING = "nginx", "grpc.aio", "Guard, inspect"


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


def bars(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was asked for of this plane, of the sizes that were run."""
    judged = []
    for shape, told in found["shapes"].items():
        for at_once, by_peer in told["again"].items():
            if {_PLAIN, _INSPECTING} <= set(by_peer) and int(at_once) > 1:
                worst = ratios(by_peer[_INSPECTING], by_peer[_PLAIN], "cpu_us")
                judged.append({
                    "what": f"{shape}, {at_once} in flight: inspecting over grpc.aio that passes bytes through",
                    "wanted": "at most 1.1", "measured": _ratio(worst), "held": worst[1] <= 1.1,
                })  # fmt: skip
            if {"Envoy + ext_proc", _INSPECTING} <= set(by_peer) and int(at_once) > 1:
                least = ratios(by_peer["Envoy + ext_proc"], by_peer[_INSPECTING], "cpu_us")
                judged.append({
                    "what": f"{shape}, {at_once} in flight: Envoy + ext_proc over inspecting",
                    "wanted": "at least 2", "measured": _ratio(least), "held": least[1] >= 2.0,
                })  # fmt: skip
    return judged


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
