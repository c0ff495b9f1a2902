"""`python -m bench.answers`: labels kept, Square attack, membership inference, behind output protections.

A section that is not measured stays on the page as it was. Square's attacks are kept, and not done again.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from bench.detection.run import made

DOCS = Path("docs/results/answers.md")
SECTIONS = ("labels", "square", "membership")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.answers", description="Protected answers, measured.")
    made.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (all)")
    made.add_argument("--quick", action="store_true", help="a small slice; writes nothing unless told to")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        print(f"bench.answers: no section is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    page = options.docs or (None if options.quick else DOCS)
    by = made(shlex.join(["python", "-m", "bench.answers", *(sys.argv[1:] if argv is None else argv)]))
    try:
        measured = {name: _MEASURE[name](options.quick) for name in options.sections or SECTIONS}
    except DataUnavailable as error:
        print(f"bench.answers: {error}", file=sys.stderr)
        return 2
    found = told(page, measured, by)
    if page is None:
        print(markdown(found))
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


def told(page: Path | None, measured: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """What is known and what was measured, with its bars; written, where there is a page."""
    from bench.answers import bars, table  # noqa: PLC0415 - torch is told of threads before it is there

    known = _known(page)
    found = {**known, **measured, "made": {**known.get("made", {}), **dict.fromkeys(measured, by)}}
    found["bars"] = [one.plain() for one in bars.judged(found)]
    if page is not None:
        table.put(page, markdown(found))
        write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The figures."""
    from bench.answers import table  # noqa: PLC0415 - as above

    return table.markdown(found)


def _known(page: Path | None) -> dict[str, Any]:
    if page is None or not page.with_suffix(".json").is_file():
        return {}
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def _labels(quick: bool) -> dict[str, Any]:
    from bench.answers import labels  # noqa: PLC0415 - as above

    few = labels.Scale(rows=50, edge=20, wire=(("mnist", 5),), repeats=50, averaged=5, data=("mnist", "cifar10"))
    return labels.measured(few if quick else None)


def _square(quick: bool) -> dict[str, Any]:
    from bench.answers import square  # noqa: PLC0415 - as above

    if quick:
        few = tuple(replace(row, many=5) for row in square.ROWS[:2])
        return square.measured(rows=few, budget=200)
    return square.measured()


def _membership(quick: bool) -> dict[str, Any]:
    from bench.answers import membership  # noqa: PLC0415 - as above

    few = membership.Scale(400, 1, 500, 10, 40, 5, 100, membership.WAYS[:2])
    return membership.measured(few if quick else None)


_MEASURE: Mapping[str, Callable[[bool], dict[str, Any]]] = {
    "labels": _labels, "square": _square, "membership": _membership,
}  # fmt: skip


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.answers", *sys.argv[1:]], environment)
    raise SystemExit(main())
