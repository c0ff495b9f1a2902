"""`python -m tests.faults [NAME ...] [--docs FILE.md]`: run the matrix, show it, and say which rows did not hold."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.faults.matrix import Row, known_stages
from tests.faults.table import markdown, rows


async def _seen(row: Row) -> str:
    with tempfile.TemporaryDirectory() as directory, known_stages():
        return await row.does(Path(directory))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """0 where all rows held."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault matrix.")
    parser.add_argument("rows", metavar="NAME", nargs="*", help="these alone")
    parser.add_argument("--docs", metavar="FILE.md", type=Path, help="write the table there")
    options = parser.parse_args()
    seen, failed = {}, []
    for row in rows():
        if options.rows and row.name not in options.rows:
            continue
        try:
            seen[row.name] = asyncio.run(_seen(row))
            say(f"{row.name}: {seen[row.name]}")
        except Exception as error:  # noqa: BLE001 - each row is told of
            seen[row.name] = "**not so**"
            failed.append(row.name)
            say(f"{row.name}: FAILED {type(error).__name__}: {error}")
    if options.docs:
        options.docs.write_text(markdown(seen))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
