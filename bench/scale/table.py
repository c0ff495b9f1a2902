"""The figures as Markdown, and what was asked for beside them."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import pages
from bench.detection.bars import Bar
from bench.detection.table import grid
from bench.scale.sizing import GIB

BEGIN, END = "<!-- bench.scale: begin -->", "<!-- bench.scale: end -->"
_MOST_US = {"32x32x3": 1_000.0, "224x224x3": 3_000.0}
_GROWTH, _IN_MEMORY, _IN_VALKEY = 1.5, 1024, 2048
_DAY, _HOUR = 86_400, 3_600
_KINDS = {"unlike": "like nothing stored", "near": "like 8 stored rows"}


def judged(found: Mapping[str, Any]) -> list[Bar]:
    """All that the figures can tell of."""
    return [*_of_costs(found.get("costs")), *_of_units(found.get("scale"))]


def _of_costs(costs: Mapping[str, Any] | None) -> Iterator[Bar]:
    if costs is None:
        return
    for size, most in _MOST_US.items():
        wholes = {key: one["mean"] for key, one in costs["us"].items() if key.startswith(f"{size} | whole")}
        if wholes:
            worst = max(wholes, key=lambda key: wholes[key])
            kind, stored = worst.split(" | ")[2:]
            told = f"at most {wholes[worst]:,.0f} us in the mean ({_KINDS[kind]}, {int(stored):,} stored)"
            yield Bar(f"{size}: CPU of one query's monitoring", f"at most {most:,.0f} us", told, wholes[worst] <= most)
    for what in ("whole", "exchange"):
        ratios = {key: ratio for key, ratio in costs["growth"].items() if f"| {what} |" in key}
        worst = max(ratios, key=lambda key: ratios[key])
        told = f"at most {ratios[worst]:.2f} times ({worst.split(' | ')[0]}, {_KINDS[worst.split(' | ')[2]]})"
        name = {"whole": "one query's monitoring", "exchange": "the store's part of it alone"}[what]
        yield Bar(f"most rows stored over fewest: CPU of {name}", f"at most {_GROWTH}", told, ratios[worst] <= _GROWTH)
    size = costs["bytes_in_memory"]
    yield Bar("a stored row in memory", f"at most {_IN_MEMORY:,} bytes", f"{size:,.0f} bytes", size <= _IN_MEMORY)


def _of_units(scale: Mapping[str, Any] | None) -> Iterator[Bar]:
    if scale is not None:
        units, share = scale["units"], scale["assumed"]["clustered"]
        size = units["row"] + units["recent"] + share * units["cluster"]
        yield Bar("a stored row in Valkey", f"at most {_IN_VALKEY:,} bytes", f"{size:,.0f} bytes", size <= _IN_VALKEY)


def markdown(found: Mapping[str, Any]) -> str:
    """The whole."""
    lines = ["## What was asked for", ""]
    rows = [(one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**") for one in found["bars"]]
    lines += grid(("what", "wanted", "measured", "held"), rows)
    for section, tell in (("costs", _costs), ("scale", _scale)):
        if found.get(section):
            lines += [*tell(found[section]), _made(found["made"][section]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _made(by: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(by["versions"].items()))
    return f"Made by `{by['command']}`, seed {by['seed']}, on {by['machine']}; {versions}."


def _costs(costs: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## One query's monitoring, store in memory", "")
    yield from _paragraph(f"""CPU us of one row: median (quartiles) of {costs["rounds"]} rounds of {costs["calls"]}
        calls, and their mean. A window's monitor works once in so many rows; the mean of the whole has its part.""")
    rows = []
    for key, one in costs["us"].items():
        size, what, *at = key.split(" | ")
        kind, stored = at or ("", "")
        told = f"{one['median']:,.0f} ({one['low']:,.0f} to {one['high']:,.0f})"
        rows.append(
            (size, what, _KINDS.get(kind, ""), f"{int(stored):,}" if stored else "", told, f"{one['mean']:,.0f}")
        )
    yield from grid(("images", "what", "the row is", "rows stored", "us", "mean"), rows)
    yield from ("Most rows stored over fewest, the median of the rounds' ratios:", "")
    ratios = [(*key.split(" | "), f"{ratio:.2f}") for key, ratio in costs["growth"].items()]
    yield from grid(("images", "what", "the row is", "ratio"), [(a, b, _KINDS[c], d) for a, b, c, d in ratios])


def _scale(scale: Mapping[str, Any]) -> Iterator[str]:
    units, sample, assumed = scale["units"], scale["sample"], scale["assumed"]
    yield from ("## What one Valkey server spends", "")
    yield from _paragraph(f"""A sample of {sample["callers"]:,} callers and {sample["rows"]:,} rows, {sample["rounds"]}
        rounds of {sample["calls"]:,} operations each, {scale["server"]}. A caller has the evidence of the default
        monitors. A recent row has its part of its caller's ring in it, of few rows each here, so that it is dear.""")
    sizes = [(name, f"{units[name]:,.0f}") for name in ("caller", "row", "recent", "cluster")]
    yield from grid(("what", "bytes"), sizes)
    rows = [
        (name, f"{us:,.0f} ({units['quartiles'][name][0]:,.0f} to {units['quartiles'][name][1]:,.0f})",
         f"{units['script_us'][name]:,.0f}", f"{1e6 / us:,.0f}")
        for name, us in units["us"].items()
    ]  # fmt: skip
    yield from grid(("operation", "server's CPU, us", "in scripts, us on the clock", "a second of CPU"), rows)
    yield from _paragraph(f"""A query like nothing stored (an exchange, two credits): {units["alone_us"]:,.0f} us of the
        server's CPU from one client, {units["at_once_us"]:,.0f} us from {sample["clients"]} at once:
        {1e6 / units["at_once_us"]:,.0f} queries a second of CPU.""")
    yield from (f"## {assumed['callers']:,} callers", "")
    yield from _assumed(assumed)
    yield from _needs(scale["needs"])


def _needs(needs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        (f"{one['rate']:,}", _time(one["ttl_s"]), f"{one['rows']:,}", _size(one["bytes"]), f"{one['operations']:,.0f}",
         f"{one['cpus']:,.1f}", f"{one['by_memory']:,}", f"{one['by_cpu']:,}", f"**{one['shards']:,}**")
        for one in needs
    ]  # fmt: skip
    headings = (
        "queries a second", "rows kept for", "rows", "memory", "operations a second", "CPUs busy", "shards by memory",
        "by CPU", "needed",
    )  # fmt: skip
    yield from grid(headings, rows)
    yield from _paragraph(f"""All keys of a model lie in one slot, so one server takes all of it: about
        {needs[0]["a_model"]:,.0f} queries a second of one model here, and what rows its memory holds. A rate beyond
        that must be of several models, which a cluster spreads, or callers must be dealt out
        to partitions, each under a scope of its own; Guard does not do that by itself. Partitions
        are blind to each other: near-repeats and clusters of accounts in different ones are not
        linked, while each caller's own evidence is whole. Rows are bounded by `max_entries` (2^30
        at most) before `ttl_s`.""")


def _assumed(assumed: Mapping[str, Any]) -> Iterator[str]:
    yield from _paragraph(f"""Assumed: queries of one row; {assumed["duplicates"]:.0%} are exact repeats (an exchange
        and no more), {assumed["near"]:.0%} near-repeats; {assumed["clustered"]:.0%} of rows have a cluster with
        evidence; all callers are remembered, with {assumed["recent"]} recent rows at most; a shard has
        {assumed["memory"] // GIB} GiB, of which data takes {assumed["filled"]:.0%}, and one CPU like this machine's, of
        which scripts take {assumed["busy"]:.0%}.""")


def _paragraph(text: str) -> Iterator[str]:
    yield from textwrap.wrap(" ".join(text.split()), 120)
    yield ""


def _time(seconds: int) -> str:
    if seconds % _DAY == 0:
        return f"{seconds // _DAY} d"
    return f"{seconds // _HOUR} h" if seconds % _HOUR == 0 else f"{seconds // 60} min"


def _size(size: float) -> str:
    return f"{size / GIB:,.0f} GiB" if size < 10_000 * GIB else f"{size / 1024 / GIB:,.0f} TiB"


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    pages.put(page, text, begin=BEGIN, end=END, title="What monitoring costs, and at what scale")
