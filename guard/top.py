"""What `guard top` draws: one look at a Guard, beside the look before. Names that strangers chose are made harmless."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from guard.cli_callers import safe

__all__ = ["away", "safe", "screen"]

_LEVELS = {"clear": "green", "watch": "yellow", "suspect": "dark_orange", "hostile": "bold red"}
_BARS = "▁▂▃▄▅▆▇█"
_SPARK = 16
_PLAIN = "allow"
_SHRINK = frozenset({"CALLER", "MODEL", "FINDINGS", "DETAIL", "STAGE", "MONITOR"})
_FINDING = ("stage", "kind", "model", "mode")
_TALL = 60
_NOT_FAILED = frozenset({"OK", "CANCELLED"})
"""How calls to upstreams end that went well, or that whoever called ended."""


def screen(look: Mapping[str, Any], former: Mapping[str, Any] | None = None, height: int = _TALL) -> RenderableType:
    """All of it, in about `height` lines."""
    room = max(3, (height - 20) // 3)
    return Group(
        _head(look),
        _now(look, former),
        _callers(look, room),
        _decisions(look, room),
        _findings(look, former, room),
        _health(look),
    )


def away(why: str, former: Mapping[str, Any] | None) -> RenderableType:
    """Guard does not answer: that, and the last that was seen."""
    told = Text(f"{safe(why)}  - asking again", style="bold red")
    if former is None:
        return told
    return Group(told, Text(f"What follows is from {_clock(former['time'])}.", style="dim"), screen(former))


def _clock(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def _head(look: Mapping[str, Any]) -> Text:
    state = ("ready", "bold green") if look["ready"] else ("NOT READY", "bold red")
    up = dt.timedelta(seconds=max(0, round(look["time"] - look["started"])))
    told = (
        f"  guard {safe(look['version'])}  up {up}  settings {safe(look['config_digest'])[:12]}  {_clock(look['time'])}"
    )
    return Text.assemble(state, told)


# --- counts


def no_plain(counts: Mapping[str, Any], key: str) -> float:
    """Decisions that were (`action`), or would have been (`would_be`), something else than allow."""
    return float(sum(one["count"] for one in counts["decisions"] if one[key] != _PLAIN))


def _rate(look: Mapping[str, Any], former: Mapping[str, Any] | None, of: Callable[[Mapping[str, Any]], float]) -> str:
    """A second, since the look before."""
    if former is None or look["time"] <= former["time"]:
        return "-"
    more = max(0.0, of(look["counts"]) - of(former["counts"]))
    return f"{more / (look['time'] - former['time']):.1f}"


def _now(look: Mapping[str, Any], former: Mapping[str, Any] | None) -> Table:
    counts, limits = look["counts"], look["limits"]
    by_action: dict[str, float] = {}
    for one in counts["decisions"]:
        by_action[one["action"]] = by_action.get(one["action"], 0.0) + one["count"]
    mean_ms = 1000 * counts["inspection_s"] / counts["inspected"] if counts["inspected"] else 0.0
    calls = sum(counts["calls"].values())
    table = Table.grid(padding=(0, 2))
    rows = (
        (
            "calls/s",
            _rate(look, former, lambda c: sum(c["calls"].values())),
            f"{calls:.0f} in all, {calls - counts['calls'].get('OK', 0):.0f} not OK",
        ),
        (
            "suspicious/s",
            _rate(look, former, lambda c: no_plain(c, "would_be")),
            f"{no_plain(counts, 'would_be'):.0f} in all, {no_plain(counts, 'action'):.0f} acted upon",
        ),
        (
            "decisions",
            f"{sum(by_action.values()):.0f}",
            ", ".join(f"{a} {n:.0f}" for a, n in sorted(by_action.items())),
        ),
        (
            "in flight",
            f"{counts['in_flight']:.0f}",
            f"of {limits['in_flight']}; waiting {counts['queued']:.0f} of {limits['queued']}",
        ),
        (
            "inspection",
            f"{mean_ms:.2f}",
            "ms in the mean since the start",
        ),
    )
    for name, value, note in rows:
        table.add_row(Text(name, style="dim"), Text(value, style="bold", justify="right"), Text(safe(note)))
    return table


# --- tables


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold cyan", box=None, pad_edge=False, expand=False)
    for column in columns:
        table.add_column(column, header_style="dim", no_wrap=column not in _SHRINK)
    return table


def _cell(cell: Text | str) -> Text:
    """One line of it, whatever room there is, and nothing in it that a terminal would obey."""
    text = cell if isinstance(cell, Text) else Text(safe(cell))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _fill(table: Table, rows: Iterable[tuple[Text | str, ...]], none: str) -> Table:
    for row in rows:
        table.add_row(*map(_cell, row))
    if not table.row_count:
        table.add_row(Text(none, style="dim"))
    return table


def spark(points: Iterable[tuple[float, float]]) -> str:
    """Values as bars, evenly from all of them up to the latest; a full one is an alarm."""
    values = [value for _, value in points]
    if len(values) > _SPARK:
        values = [values[i * (len(values) - 1) // (_SPARK - 1)] for i in range(_SPARK)]
    return "".join(_BARS[max(0, min(len(_BARS) - 1, int(value * (len(_BARS) - 1))))] for value in values)


def _callers(look: Mapping[str, Any], room: int) -> Table:
    table = _table("Callers by evidence (1 is an alarm)", "CALLER", "MODEL", "LEVEL", "EVIDENCE", "", "MONITOR", "ROWS")
    return _fill(table, map(_caller, look["callers"][:room]), "nobody")


def _caller(one: Mapping[str, Any]) -> tuple[Text | str, ...]:
    monitor, way = max(one["monitors"].items(), key=lambda known: known[1], default=("-", 0.0))
    style = _LEVELS.get(one["level"], "")
    return (
        one["caller"],
        one["model"],
        Text(safe(one["level"]), style=style),
        f"{way:.2f}",
        Text(spark(one["points"]), style=style),
        monitor,
        str(one["rows"]),
    )


def _decisions(look: Mapping[str, Any], room: int) -> Table:
    table = _table("Recent decisions", "TIME", "CALLER", "MODEL", "ACTION", "WOULD BE", "FINDINGS")
    return _fill(table, map(_decision, look["decisions"][:room]), "none")


def _decision(one: Mapping[str, Any]) -> tuple[Text | str, ...]:
    found = ", ".join(
        f["stage"] + (" failed" if f["error"] else "" if f["p_value"] is None else f" {f['p_value']:.1e}")
        for f in one["findings"]
    )
    acted = Text(safe(one["action"]), style="" if one["action"] == _PLAIN else "bold red")
    return _clock(one["time"]), one["caller"], one["model"], acted, one["would_be"], found or "-"


def _findings(look: Mapping[str, Any], former: Mapping[str, Any] | None, room: int) -> Table:
    table = _table("Findings by stage", "STAGE", "KIND", "MODEL", "MODE", "FIRED", "/s")
    fired = sorted((f for f in look["counts"]["findings"] if f["count"]), key=lambda f: -f["count"])

    def rate(one: Mapping[str, Any]) -> str:
        key = tuple(one[name] for name in _FINDING)

        def count(counts: Mapping[str, Any]) -> float:
            same = (f for f in counts["findings"] if tuple(f[name] for name in _FINDING) == key)
            return float(sum(f["count"] for f in same))

        return _rate(look, former, count)

    rows = ((f["stage"], f["kind"], f["model"], f["mode"], f"{f['count']:.0f}", rate(f)) for f in fired[:room])
    return _fill(table, rows, "none has fired")


def _health(look: Mapping[str, Any]) -> Table:
    counts, limits = look["counts"], look["limits"]
    table = _table("Health", "WHAT", "STATE", "DETAIL")
    rows = [_model(model) for model in look["models"]]
    failed = sum(count for code, count in counts["upstream_calls"].items() if code not in _NOT_FAILED)
    store = f"{limits['store']}: {counts['store_entries']:.0f} of {limits['store_entries']} rows"
    lost = sum(counts["audit_events"].get(name, 0) for name in ("dropped", "failed"))
    rows += [
        ("upstream calls", _state(not failed, "answered", f"{failed:.0f} failed"), ""),
        ("store", _state(not counts["store_away"], "there", "AWAY"), store),
        ("audit log", _state(not lost, "written", f"{lost:.0f} events lost"), ""),
    ]
    if limits["workers"] > 1:
        ready = counts["workers"].get("ready", 0)
        rows.append(
            ("workers", _state(ready == limits["workers"], "ready", f"{ready:.0f} ready"), str(limits["workers"]))
        )
    return _fill(table, rows, "")


def _model(model: Mapping[str, Any]) -> tuple[Text | str, ...]:
    drifting = [s["name"] for s in model["stages"] if s["drift"] is not None and s["drift"]["alarm"]]
    told = [model["mode"], model["upstream"], model["reason"]]
    told += [f"drift: {', '.join(drifting)}"] if drifting else []
    good = model["ready"] and not drifting
    state = _state(good, "ready", "DRIFT" if model["ready"] else "NOT READY")
    return f"model {model['name']}", state, "  ".join(one for one in told if one)


def _state(good: bool, yes: str, no: str) -> Text:
    return Text(yes, style="green") if good else Text(no, style="bold red")
