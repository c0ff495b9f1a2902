"""`adversary replay CAMPAIGN --out DIR` and `adversary compare A B`."""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from adversary import (
    campaign,
    judge_bars,
    report,
    report_compare,
    report_goals,
    report_html,
    report_markdown,
    report_text,
)
from adversary.data.cache import write_atomic
from adversary.judge_document import Judged, judged, machine
from adversary.progress import Screen
from adversary.replay import How, Replayed, replay

MISSED = 1


def add(commands: Any) -> None:
    """The parsers of both."""
    running = commands.add_parser("replay", help="run a campaign against a guarded endpoint and its control; report")
    running.add_argument(
        "campaign", metavar="CAMPAIGN", help=f"a YAML file, or one of: {', '.join(campaign.shipped())}"
    )
    running.add_argument("--out", type=Path, required=True, metavar="DIR", help="results; run again to go on there")
    running.add_argument("--guarded", metavar="HOST:PORT", help="attack this endpoint instead of the campaign's")
    running.add_argument("--control", metavar="HOST:PORT", help="the same model undefended, instead of the campaign's")
    running.add_argument("--model-name", default="", metavar="NAME", help="as these endpoints call it")
    running.add_argument("--victims", type=_count, metavar="N", help="at most so many an attack: a quick look")
    running.add_argument("--jobs", type=_count, default=1, metavar="N", help="processes on this machine (default 1)")
    running.add_argument("--ray", metavar="ADDRESS", help="spread over a Ray cluster that sees the same files")
    running.add_argument("--fail-under", type=Path, metavar="SCORE.yaml", help="exit 1 where a bar is missed")
    running.set_defaults(run=run)
    comparing = commands.add_parser("compare", help="two reports side by side")
    for name in ("a", "b"):
        comparing.add_argument(name, type=Path, metavar=f"{name.upper()}.json", help="a report.json, or its directory")
    comparing.add_argument("--json", action="store_true", help="as JSON")
    comparing.set_defaults(run=compare)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def run(options: argparse.Namespace) -> int:
    """0: done; 1: done, and a bar was missed or a unit failed; 2: not done."""
    bars = None if options.fail_under is None else judge_bars.load(options.fail_under)
    given: dict[campaign.TargetName, str | None] = {"guarded": options.guarded, "control": options.control}
    addresses = {name: address for name, address in given.items() if address is not None}
    written = campaign.load(options.campaign, campaign.Overrides(addresses, options.model_name, options.victims))
    signal.signal(signal.SIGTERM, _stop)
    started = time.monotonic()
    with Screen(Console(stderr=True)) as screen:
        done = replay(written.campaign, options.out, How(options.jobs, options.ray), screen)
    made = judged(done, written, _run(done, started))
    write(made, options.out)
    show(made.document, options.out, Console())
    lines = [] if bars is None else judge_bars.missed(bars, made.document)
    for line in lines:
        print(f"adversary: missed: {line}", file=sys.stderr)  # noqa: T201 - a command line
    return MISSED if lines or made.document.failures else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    """As Ctrl-C does, which an event loop knows how to end by."""
    signal.raise_signal(signal.SIGINT)


def _run(done: Replayed, started: float) -> report.Run:
    return report.Run(
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["adversary", *sys.argv[1:]]),
        machine=machine(),
        seconds=round(time.monotonic() - started, 3),
        work_seconds=round(done.seconds, 3),
    )


def write(made: Judged, directory: Path) -> None:
    """report.json, report.md, report.html."""
    renderings: tuple[tuple[str, Callable[[], str]], ...] = (
        ("report.json", lambda: report.dump(made.document)),
        ("report.md", lambda: report_markdown.render(made.document)),
        ("report.html", lambda: report_html.render(made)),
    )
    for name, render in renderings:
        write_atomic(directory / name, render().encode())


def show(document: report.Document, directory: Path, console: Console) -> None:
    """The short of it, in a terminal."""
    rows = []
    for attack in document.attacks:
        bare, guarded = attack.control, attack.guarded
        first = report_text.number(guarded.queries_to_detection).partition(" ")[0]
        shares = map(report_text.briefly, (bare.success, guarded.success, guarded.noticed))
        rows.append((attack.title, *shares, first))
    if rows:
        _print(f"Campaign {document.campaign}: per cent", report_text.HEADINGS[:5], rows, console)
    for section in report_goals.sections(document):
        short = [[cell.partition(" (")[0] for cell in row] for row in section.rows]
        _print(f"{section.title}: per cent, but for rows and AUROC", section.headings, short, console)
    for name, text in report_text.summary(document):
        console.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)
    doubts = len(document.warnings) + sum(len(attack.warnings) for attack in document.all_attacks)
    console.print(f"{doubts} warnings. The report: {directory / 'report.html'}", highlight=False, soft_wrap=True)


def _print(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def compare(options: argparse.Namespace) -> int:
    """Two reports, as a table or JSON."""
    a, b = report.load(options.a), report.load(options.b)
    if options.json:
        told = {"rows": report_compare.rows(a, b), "notes": report_compare.notes(a, b)}
        print(json.dumps(told, indent=2))  # noqa: T201 - a command line
    else:
        report_compare.show(a, b, Console())
    return 0
