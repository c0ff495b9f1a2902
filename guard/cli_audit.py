"""`guard audit verify`: whether a chained audit log is as it was written."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from guard import chain
from guard.settings import ConfigError


def audit_arguments(parser: argparse.ArgumentParser) -> None:
    """Of `guard audit`."""
    parser.add_argument("what", choices=["verify"])
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="its files, oldest first; -: standard input")
    help_keys = "`audit.chain_key_file`'s; once for each that was in use"
    parser.add_argument("--key-file", type=Path, metavar="FILE", required=True, action="append", help=help_keys)
    parser.add_argument("--whole", action="store_true", help="every writer's beginning and end must be there")


def audit(args: argparse.Namespace) -> int:
    """0 where all is as it was written, 1 where something is not, or there is nothing. Raises ConfigError."""
    keys = [chain.key_of(file, "--key-file") for file in args.key_file]
    try:
        verdict = chain.verify(_lines(args.logs), keys)
    except OSError as error:
        raise ConfigError("", f"cannot read {error.filename}: {error.strerror}") from None
    is_good = verdict.good and (verdict.whole or not args.whole)
    for line in (*chain.told(verdict), _in_short(verdict, is_good)):
        sys.stdout.write(line + "\n")
    return 0 if is_good else 1


def _in_short(verdict: chain.Verdict, is_good: bool) -> str:
    if not verdict.lines:
        return "empty: nothing to verify"
    if not verdict.good:
        return "NOT as it was written"
    return "good" if is_good else "NOT whole: a beginning or an end is not there"


def _lines(logs: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Each with FILE:NUMBER. Raises OSError."""
    for log in logs:
        opened: contextlib.AbstractContextManager[IO[bytes]]
        opened = contextlib.nullcontext(sys.stdin.buffer) if str(log) == "-" else log.open("rb")
        number = 1
        with opened as file:
            while line := file.readline(chain.MAX_LINE_BYTES):
                yield f"{log}:{number}", line
                number += line.endswith(b"\n")  # else it is a part of one
