"""`python -m bench.regress`: quick benches beside what was recorded; fails where a ratio has become worse beyond noise.

What looks worse is measured once more, and judged by both runs together. `--record` keeps the figures of now instead.
Not for CI: other jobs on a machine are more than any noise.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adversary.data.cache import write_atomic
from adversary.judge_document import machine
from bench.regress import judge
from bench.regress.sources import SOURCES, Failed, Found, Source

RECORDED = Path("bench/recorded/ratios.json")
_IDLE = 0.5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.regress", description="Quick benches beside recorded ones.")
    made.add_argument("--record", action="store_true", help="keep the figures of now")
    made.add_argument("--only", action="append", metavar="BENCH", choices=list(SOURCES), help="may be repeated")
    made.add_argument("--recorded", type=Path, default=RECORDED, metavar="FILE.json", help=f"({RECORDED})")
    return made


def main(argv: Sequence[str] | None = None, sources: Mapping[str, Source] = SOURCES) -> int:
    """0: nothing is worse; 1: something is; 2: nothing is recorded, or a bench that is recorded gave no figures."""
    options = parser().parse_args(argv)
    chosen = {name: source for name, source in sources.items() if not options.only or name in options.only}
    known: dict[str, Any] = {}
    if options.recorded.is_file():
        known = json.loads(options.recorded.read_text(encoding="utf-8"))
    if not options.record and not known:
        print(f"bench.regress: nothing is recorded in {options.recorded}: make bench-record", file=sys.stderr)
        return 2
    _warn(known, record=options.record)
    now, failed = measured(chosen)
    if options.record:
        return _record(options.recorded, known, now, failed)
    recorded = {name: known["ratios"].get(name, {}) for name in chosen}
    again(chosen, recorded, now)
    rows = [row for name in chosen if name not in failed for row in judge.compared(recorded[name], now[name])]
    print(judge.table(rows))
    worse = judge.worse(rows)
    print(f"\n{len(worse)} of {len(rows)} ratios are worse than on {known['made']['day']}", flush=True)
    for name, words in failed.items():
        print(f"bench.regress: {name} gave no figures: {words}", file=sys.stderr)
    return 1 if worse else 2 if any(recorded[name] for name in failed) else 0


def measured(sources: Mapping[str, Source]) -> tuple[dict[str, Found], dict[str, str]]:
    """Ratios by bench, and why others have none."""
    now: dict[str, Found] = {}
    failed: dict[str, str] = {}
    for name, source in sources.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            now[name] = source.run()
        except Failed as error:
            failed[name] = str(error)
    return now, failed


def again(sources: Mapping[str, Source], recorded: Mapping[str, judge.Ratios], now: dict[str, Found]) -> None:
    """Another run of each bench in which something looks worse, added to the first."""
    for name in tuple(now):
        if not judge.worse(judge.compared(recorded[name], now[name])):
            continue
        print(f"{name} looks worse: once more", file=sys.stderr, flush=True)
        try:
            further = sources[name].run()
        except Failed:
            continue
        now[name] = {what: [*values, *further.get(what, ())] for what, values in now[name].items()}


def _warn(known: Mapping[str, Any], *, record: bool) -> None:
    if os.getloadavg()[0] > _IDLE:
        print("bench.regress: other jobs run on this machine: figures will scatter", file=sys.stderr)
    made = known.get("made", {})
    if not record and made.get("busy"):
        print("bench.regress: what is recorded was taken beside other jobs: record it anew", file=sys.stderr)
    if not record and made.get("machine") != machine():
        print(f"bench.regress: recorded on another machine: {made.get('machine')}", file=sys.stderr)


def _record(file: Path, known: Mapping[str, Any], now: Mapping[str, Found], failed: Mapping[str, str]) -> int:
    """What gave no figures stays as it was."""
    made = {"day": datetime.now(UTC).date().isoformat(), "machine": machine(), "busy": os.getloadavg()[0] > _IDLE}
    document = {"made": made, "ratios": {**known.get("ratios", {}), **now}}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(document, indent=1) + "\n").encode())
    print(f"{sum(map(len, now.values()))} ratios of {len(now)} benches are in {file}")
    for name, words in failed.items():
        print(f"bench.regress: {name} gave no figures: {words}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
