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
    parser.add_argument("--key-file", type=Path, metavar="FILE", required=True, help="`audit.chain_key_file`'s")


def audit(args: argparse.Namespace) -> int:
    """0 where all is as it was written, 1 where something is not. Raises ConfigError."""
    key = chain.key_of(args.key_file, "--key-file")
    try:
        verdict = chain.verify(_lines(args.logs), key)
    except OSError as error:
        raise ConfigError("", f"cannot read {error.filename}: {error.strerror}") from None
    for line in chain.told(verdict):
        sys.stdout.write(line + "\n")
    sys.stdout.write("good\n" if verdict.good else "NOT as it was written\n")
    return 0 if verdict.good else 1


def _lines(logs: list[Path]) -> Iterator[bytes]:
    """Raises OSError."""
    for log in logs:
        opened: contextlib.AbstractContextManager[IO[bytes]]
        opened = contextlib.nullcontext(sys.stdin.buffer) if str(log) == "-" else log.open("rb")
        with opened as file:
            while line := file.readline(chain.MAX_LINE_BYTES):
                yield line
