"""`python -m bench.telltale`: can a caller tell from what comes back which of his queries were flagged, and by what?

CIFAR-10's victim in `guard serve`, over gRPC, one query after the other. The bar is for the default policy; `loud` is
the control in which the answer must be yes. `bare` holds the model's own answers to the same queries, without Guard,
against the same flags: what they tell, no policy can hide. `more` is what the default policy's tell beyond that.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adversary.data.cache import DataUnavailable, write_atomic
from bench import pages
from bench.detection.run import made
from bench.telltale import judging, worlds
from bench.telltale.asking import SEEN, asked
from bench.telltale.judging import judge, scored
from bench.telltale.worlds import Sending

DATA, BAR = "cifar10", 0.60
DOCS = Path("docs/results/telltale.md")
BEGIN, END = "<!-- bench.telltale: begin -->", "<!-- bench.telltale: end -->"
AMOUNTS = (0.0, 0.04)
"""Of noise: chosen on the `clean` split, where about half of the images under it are flagged."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench.telltale", description="What answers tell of verdicts.")
    made.add_argument("--accounts", type=int, default=60, metavar="N", help="of each kind (60)")
    made.add_argument("--each", type=int, default=40, metavar="N", help="queries an account (40)")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--docs", type=Path, default=DOCS, metavar="FILE.md", help=f"the page ({DOCS})")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """0: the bar is held; 1: it is not; 2: nothing was measured."""
    options = parser().parse_args(argv)
    try:
        found = measured(options.accounts, options.each, options.seed)
    except (DataUnavailable, FileNotFoundError) as error:
        print(f"bench.telltale: {error}", file=sys.stderr)
        return 2
    by = made(shlex.join(["python", "-m", "bench.telltale", *(sys.argv[1:] if argv is None else argv)]))
    text = markdown(found, by)
    pages.put(options.docs, text, begin=BEGIN, end=END, title="What answers tell of verdicts")
    document = {"made": by, "found": found}
    write_atomic(options.docs.with_suffix(".json"), (json.dumps(document, indent=1) + "\n").encode())
    print(text)
    return 0 if all(one["auroc"] <= BAR for one in found if one["policy"] == "default") else 1


def measured(accounts: int, each: int, seed: int) -> list[dict[str, Any]]:
    """One entry a kind of queries, a policy and a stage that flagged enough of them."""
    kinds: Mapping[str, Callable[[], Sending]] = {
        "inputs": lambda: worlds.noisy(DATA, accounts, each, seed, AMOUNTS),
        "callers": lambda: worlds.searching(DATA, accounts, each, seed),
    }
    found = []
    for kind, made_of in kinds.items():
        sending, detectors = made_of(), kind == "inputs"
        bare = asked(worlds.settings(DATA, None), DATA, sending).seen
        for policy in worlds.POLICIES:
            told = asked(worlds.settings(DATA, policy, detectors=detectors), DATA, sending)
            known = {
                stage: scored(bare, sending.account, flagged, SEEN, seed)
                for stage, flagged in told.flagged.items()
                if policy == "default"
            }
            for stage, flagged in told.flagged.items():
                one = judge(told.seen, sending.account, flagged, SEEN, seed, known.get(stage))
                if one is not None:
                    found.append({"kind": kind, "policy": policy, "stage": stage, **asdict(one)})
            for stage, alone in known.items():
                if alone is not None:
                    found.append({"kind": kind, "policy": "bare", "stage": stage, **asdict(judging.told(alone, seed))})
    return found


def markdown(found: Sequence[Mapping[str, Any]], by: Mapping[str, Any]) -> str:
    """The table, and whether the bar is held."""
    rows = [
        f"| {one['kind']} | {one['policy']} | {one['stage']} | {one['flagged']} of {one['n']} "
        f"| {one['auroc']:.2f} ({one['low']:.2f} to {one['high']:.2f}) "
        f"| {one['beside']:.2f} ({one['beside_low']:.2f} to {one['beside_high']:.2f}) | {_more(one['more'])} "
        f"| {one['by']} |"
        for one in found
    ]
    default = [one for one in found if one["policy"] == "default"]
    worst = max(default, key=lambda one: float(one["auroc"]), default=None)
    said = "nothing was flagged often enough" if worst is None else f"{worst['auroc']:.2f} at most"
    held = worst is not None and worst["auroc"] <= BAR
    columns = (
        "queries", "policy", "flagged by", "flagged", "AUROC (95 % interval over accounts)", "of neighbours",
        "more than the bare model", "by what",
    )  # fmt: skip
    head = (f"| {' | '.join(columns)} |", "|---" * len(columns) + "|")
    lines = [*head, *rows, "", f"Default policy: {said}; wanted: at most {BAR:.2f}: **{'yes' if held else 'no'}**.", ""]
    lines.append(f"Made by `{by['command']}`.")
    return "\n".join(lines) + "\n"


def _more(found: Sequence[float] | None) -> str:
    return "" if found is None else f"{found[0]:+.2f} ({found[1]:+.2f} to {found[2]:+.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
