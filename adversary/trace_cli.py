"""`adversary trace FILE`: send a recorded trace again, and say what is answered otherwise than then."""

import argparse
import asyncio
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from adversary import trace
from adversary.attack import Refused
from adversary.oracle import reply_labels
from adversary.scores import rate
from adversary.targets import add_target, as_callers, endpoint_of


def add(commands: Any) -> None:
    """The command's parser."""
    parser = commands.add_parser("trace", help="replay a recorded trace at its own pace, or faster")
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="what `adversary attack --record` wrote")
    add_target(parser)
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="so many times as fast; inf: as fast as it is answered"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    parser.set_defaults(run=run)


def _speed(text: str) -> float:
    value = float(text)
    if math.isnan(value) or value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def told(recorded: trace.Trace, came: trace.Replayed) -> dict[str, Any]:
    """Then and now, as data for JSON."""
    pairs = list(zip(recorded.calls, came.replies, strict=True))
    both = [
        (then.labels, tuple(map(int, reply_labels(now, len(then.rows)))))
        for then, now in pairs
        if then.labels and not isinstance(now, Refused)
    ]
    return {
        "calls": len(pairs),
        "rows": sum(len(call.rows) for call in recorded.calls),
        "calls_lost_when_recorded": recorded.lost,
        "refused_then": rate([not call.labels for call in recorded.calls]).plain(),
        "refused_now": rate([isinstance(now, Refused) for now in came.replies]).plain(),
        "answered_otherwise": rate([a != b for then, now in both for a, b in zip(then, now, strict=True)]).plain(),
        "seconds_then": recorded.seconds,
        "seconds_now": came.seconds,
        "latest_call_late_s": came.late_s,
    }


def run(options: argparse.Namespace) -> int:
    """The command."""
    recorded = trace.load(options.file)
    endpoint = as_callers(endpoint_of(options), options.identity_header, "trace", recorded.identities)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(options.file.name, total=len(recorded.calls))
        work = trace.replay(
            recorded,
            endpoint,
            speed=options.speed,
            tell=lambda done, refused: bar.update(task, completed=done, description=f"{refused:,} refused"),
        )
        came = asyncio.run(work)
    shown = told(recorded, came)
    if options.json:
        print(json.dumps(shown, indent=2))  # noqa: T201 - a command line
        return 0
    for name, value in shown.items():
        text = f"{value['hits']:,} of {value['n']:,}" if isinstance(value, dict) else f"{value:,.6g}"
        print(f"{name.replace('_', ' '):26} {text}")  # noqa: T201 - a command line
    return 0
