"""`python -m demo.stack`: Triton, Guard, Valkey and Prometheus as plain processes, until Ctrl-C."""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from adversary.data.cache import DataUnavailable
from adversary.processes import ChildFailed
from demo.stack import check, running
from demo.stack.dashboard import FILE

_FAILURES = (ChildFailed, DataUnavailable, OSError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or stopped, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m demo.stack", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("build/stack"), help="models, profile, logs, what was measured"
    )
    parser.add_argument("--files", action="store_true", help="make what Compose mounts, and end")
    parser.add_argument("--check", action="store_true", help="send traffic and an attack, ask for every panel, and end")
    parser.add_argument("--docs", type=Path, help="with --check: write the result there, too")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with running.stack(given.out, _say):
            if given.check:
                return check.run(given.out, given.docs, _say)
            if not given.files:
                _say(_addresses(given.out))
                threading.Event().wait()
    except _FAILURES as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("stopped, nothing is left running")
    return 0


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _addresses(out: Path) -> str:
    return f"""
  Guard       {running.GUARD}   (gRPC: the model `mnist`; clients connect here)
  metrics     http://{running.METRICS}/metrics
  Prometheus  http://{running.PROMETHEUS}   (rules and alerts loaded)
  Triton      {running.TRITON}   (bare: only for comparison)
  dashboard   {FILE}   (Grafana is not among these processes: import it into yours)
  logs        {out}/

Ctrl-C ends all of it."""


def _say(text: str) -> None:
    sys.stderr.write(f"stack: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
