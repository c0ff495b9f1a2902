"""The figures as Markdown, and what was asked for beside them."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.detection.bars import Bar
from bench.detection.table import grid
from bench.growth.measure import SIZE, ratio

BEGIN, END, TITLE = "<!-- bench.growth: begin -->", "<!-- bench.growth: end -->", "What a query costs as Guard grows"
_MOST = {"callers": 1.5, "stored": 1.5}
_NAMES = {
    "callers": "callers that are known",
    "stored": "rows that are stored",
    "rows": "rows of a query",
    "monitors": "monitors, in the order of their names",
}
_BOUNDED, _LINEAR, _WORKERS = 1.25, 0.35, 1.25


def judged(found: Mapping[str, Any]) -> list[Bar]:
    """All that the figures can tell of."""
    return [*_of_queries(found["queries"]["us"]), *_of_memory(found["memory"]), *_of_workers(found.get("workers"))]


def _words(quartiles: tuple[float, float, float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _of_queries(us: Mapping[str, Any]) -> Iterator[Bar]:
    for what, most in _MOST.items():
        least, largest = next(iter(us[what])), list(us[what])[-1]
        grown = ratio(us[what], largest, least)
        name = f"CPU of a query, {int(largest):,} over {int(least):,} {_NAMES[what]}"
        yield Bar(name, f"at most {most}", _words(grown), grown[1] <= most)
    rows = us["rows"]
    first, last = next(iter(rows)), list(rows)[-1]
    each = ratio(rows, last, first)[1] * int(first) / int(last)
    yield Bar(f"CPU of a row among {last} over one alone", "at most 1", f"{each:.2f}", each <= 1.0)


def _of_memory(memory: Mapping[str, Mapping[str, int]]) -> Iterator[Bar]:
    for what, held in memory.items():
        come, size = [int(n) for n in held], list(held.values())
        bound = come[3]
        past = size[-1] / size[3]
        yield Bar(
            f"memory after {come[-1]:,} {what} over that at the bound, {bound:,}", f"at most {_BOUNDED}",
            f"{past:.2f}", past <= _BOUNDED,
        )  # fmt: skip
        each = [(size[i] - size[i - 1]) / (come[i] - come[i - 1]) for i in range(1, 4)]
        mean = float(np.mean(each))
        off = max(abs(one / mean - 1.0) for one in each)
        yield Bar(
            f"bytes of one more of the {what} on the way there: farthest from the mean", f"at most {_LINEAR:.0%}",
            f"{off:.0%} of {mean:,.0f}", off <= _LINEAR,
        )  # fmt: skip


def _of_workers(workers: Mapping[str, Any] | None) -> Iterator[Bar]:
    for kind, told in (workers or {"kinds": {}})["kinds"].items():
        us = {count: [one["us"] for one in taken] for count, taken in told["taken"].items()}
        few, many = next(iter(us)), list(us)[-1]
        grown = ratio(us, many, few)
        name = f"CPU of a call ({kind}), {many} workers over {few}"
        yield Bar(name, f"at most {_WORKERS}", _words(grown), grown[1] <= _WORKERS)


def markdown(found: Mapping[str, Any]) -> str:
    """The page's part."""
    lines = ["## What was asked for", ""]
    rows = [(one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**") for one in found["bars"]]
    lines += grid(("what", "wanted", "measured", "held"), rows)
    lines += [*_queries(found["queries"]), *_memory(found["memory"]), *_workers(found.get("workers"))]
    made = found["made"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made["versions"].items()))
    beside = " **Other jobs ran on this machine meanwhile: not a final figure.**" if made.get("busy") else ""
    return "\n".join([*lines, f"Made by `{made['command']}`, seed 0, on {made['machine']}; {versions}.{beside}", ""])


def _queries(queries: Mapping[str, Any]) -> Iterator[str]:
    how = queries["how"]
    yield from ("## One query's monitoring, store in memory", "")
    yield from _paragraph(f"""CPU us of what monitors add to a query ({SIZE}, rows that nothing is like, one thread):
        the median (quartiles) of {how["rounds"]} rounds of {how["calls"]} queries. Where the store does not grow, it is
        full of 10,000 rows, and each new one evicts one.""")
    for what, us in queries["us"].items():
        rows = []
        for n, taken in us.items():
            low, middle, high = np.quantile(taken, (0.25, 0.5, 0.75))
            each = (f"{middle / int(n):,.0f}",) if what == "rows" else ()
            over = _words(ratio(us, n, next(iter(us))))
            rows.append((f"{int(n):,}", f"{middle:,.0f} ({low:,.0f} to {high:,.0f})", over, *each))
        headings = (_NAMES[what], "us a query", "over the first", *(("us a row",) if what == "rows" else ()))
        yield from grid(headings, rows)


def _memory(memory: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield from ("## Memory", "")
    yield from _paragraph("""Resident bytes by which a fresh process has grown after so many rows (callers) came, where
        `history.max_entries` (`max_callers`) is a quarter of the last.""")
    for what, held in memory.items():
        yield from grid((what, "MB", "bytes each"), [(f"{int(n):,}", f"{size / 1e6:,.1f}", f"{size / int(n):,.0f}")
                                                     for n, size in held.items()])  # fmt: skip


def _workers(workers: Mapping[str, Any] | None) -> Iterator[str]:
    if workers is None:
        return
    yield from ("## Workers", "")
    yield from _paragraph(f"""`guard serve` in front of an embedded model, one 3 kB row a call, 32 in flight on 4
        connections, {workers["how"]["rounds"]} rounds of {workers["how"]["calls"]} calls: processor time of all of
        Guard's processes, each worker pinned to a core. Made on {workers["cores"]} cores; on two, the client shares the
        last one, and calls a second are no measure of what two workers can do.""")
    rows = []
    for kind, told in workers["kinds"].items():
        us = {count: [one["us"] for one in taken] for count, taken in told["taken"].items()}
        for count, taken in told["taken"].items():
            rows.append((
                kind, count, f"{np.median(us[count]):,.0f}", _words(ratio(us, count, next(iter(us)))),
                f"{np.median([one['rate'] for one in taken]):,.0f}", f"{told['resident_mb'][count]:,.0f}",
            ))  # fmt: skip
    yield from grid(("what", "workers", "CPU us a call", "over one", "calls a second", "MB resident"), rows)


def _paragraph(text: str) -> Sequence[str]:
    return [*textwrap.wrap(" ".join(text.split()), 120), ""]
