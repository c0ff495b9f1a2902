"""`python -m bench.monitors`: benign traffic, evasions, adaptive attackers and thieves against query-pattern monitors.

The sections `whole-...` have detectors of single inputs beside them.

It goes on where it was stopped. What is not measured stays on the page as it was.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from bench.detection.run import made
from bench.detection.work import Work, run
from bench.monitors import bars, document, guarded, table
from bench.monitors.document import SECTIONS, Scale
from bench.monitors.ground import DATA

DOCS = Path("docs/results/monitors.md")
QUICK = Scale(data=("mnist",), runs=2, callers=1, wired=1, most=400, attacks=("square", "surfree"))
_QUICK = ("benign", "evasion")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.monitors", description="Query-pattern monitors, measured.")
    made.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (all)")
    made.add_argument("--data", action="append", choices=DATA, help="may be repeated (all)")
    made.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    made.add_argument("--runs", type=int, metavar="N", help="of each attack (20)")
    made.add_argument("--callers", type=int, metavar="N", help="of each kind of benign traffic, about (3,000)")
    made.add_argument("--monitor", action="append", default=[], metavar="NAME", help="this one alone; may be repeated")
    made.add_argument("--quick", action="store_true", help="a small slice on MNIST; writes nothing unless told to")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        print(f"bench.monitors: no section is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    scale, sections = _scale(options), options.sections or (_QUICK if options.quick else SECTIONS)
    page = options.docs or (None if options.quick else DOCS)
    try:
        found = measured(sections, scale, options.jobs, _command(argv))
    except DataUnavailable as error:
        print(f"bench.monitors: {error}", file=sys.stderr)
        return 2
    found = _merged(_known(page), found)
    found["bars"] = [one.plain() for one in bars.judged(found)]
    if page is None:
        print(table.markdown(found))
    else:
        table.put(page, table.markdown(found))
        write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


def measured(sections: Sequence[str], scale: Scale, jobs: int, command: str) -> dict[str, Any]:
    """Do what is not done, then tell all of it. Raises DataUnavailable."""
    defences = [document.scaled(section, scale).defence for section in sections]
    for data in scale.data:
        for defence in dict.fromkeys(defences):
            guarded.make(data, defence)
    phases: list[list[Work]] = [
        [unit for data in scale.data for unit in document.units(section, data, scale)] for section in sections
    ]
    run(phases, jobs)
    found: dict[str, Any] = {
        section: {data: document.figures(section, data, scale) for data in scale.data} for section in sections
    }
    by = {**made(command), "monitors": list(scale.defence.named)}
    told = zip(sections, defences, strict=True)
    by_section = {section: {**by, "detectors": dict(defence.detectors)} for section, defence in told}
    return {**found, "made": {section: dict.fromkeys(scale.data, one) for section, one in by_section.items()}}


def _merged(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What was found in the place of what was known of the same data; the rest stays."""
    made = {section: {**known.get("made", {}).get(section, {}), **by} for section, by in found["made"].items()}
    parts = {section: {**known.get(section, {}), **part} for section, part in found.items() if section != "made"}
    return {**known, **parts, "made": {**known.get("made", {}), **made}}


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else Scale()
    given = {
        "data": None if options.data is None else tuple(options.data), "runs": options.runs,
        "callers": options.callers,
    }  # fmt: skip
    scale = replace(scale, **{name: value for name, value in given.items() if value is not None})
    return replace(scale, defence=replace(scale.defence, monitors=tuple(options.monitor)))


def _known(page: Path | None) -> dict[str, Any]:
    """What the page's figures were."""
    if page is None or not page.with_suffix(".json").is_file():
        return {}
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def _command(argv: Sequence[str] | None) -> str:
    return shlex.join(["python", "-m", "bench.monitors", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    raise SystemExit(main())
