"""`python -m demo`: from nothing to a table and a page, as a user would do it."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from adversary.data.cache import DataUnavailable
from adversary.oracle import OracleError
from adversary.processes import ChildFailed
from demo import table
from demo.plan import Plan
from demo.run import Options, run
from demo.screen import Screen

_STOPPED = 130
_FAILURES = (DataUnavailable, ChildFailed, OracleError, ValueError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed, 130 stopped."""
    argv = list(sys.argv[1:] if argv is None else argv)
    started, console = time.monotonic(), Console(stderr=True)
    options = _options(argv)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with Screen(console) as screen:
            told = run(options, screen)
    except _FAILURES as error:
        console.print(f"demo: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("demo: stopped, nothing is left running", highlight=False)
        return _STOPPED
    out = Console()
    table.render(told, out)
    out.print(f"The page: {options.out / 'index.html'} ({time.monotonic() - started:.0f} s)", highlight=False)
    return 0


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _options(argv: Sequence[str]) -> Options:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the results go")
    parser.add_argument("--data", type=Path, help="directory of MNIST's IDX files (default: fetched and cached)")
    parser.add_argument("--train", action="store_true", help="train the victim instead of taking the committed one")
    parser.add_argument("--seed", type=int, default=plan.seed)
    for name, text in (
        ("fit", "clean images for `guard fit`"),
        ("clean", "clean test images sent to both"),
        ("victims", "inputs of each crafted attack"),
        ("walkers", "inputs attacked by HopSkipJump"),
        ("walk-budget", "queries of each of these attacks"),
        ("pairs", "interleaved calls that measure latency"),
    ):
        default = getattr(plan, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=_positive, default=default, metavar="N", help=f"{text} (default {default})"
        )
    given = parser.parse_args(argv)
    sizes = {
        name: getattr(given, name) for name in ("seed", "fit", "clean", "victims", "walkers", "walk_budget", "pairs")
    }
    command = ("python", "-m", "demo", *argv)
    return Options(given.out, given.data, given.train, replace(plan, **sizes), command)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
