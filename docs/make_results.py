"""Write the table of docs/results.md from what `make demo` measured (build/demo/results.json)."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "results.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def share(rate: dict[str, Any]) -> str:
    """A rate in per cent with its 95 % interval."""
    low, high = rate["interval_95"]
    return f"{100 * rate['rate']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table(told: dict[str, Any]) -> Iterator[str]:
    """Clean traffic, attacks, the paper's comparison, latency, and where it all came from."""
    clean, latency, paper, made = told["clean"], told["latency"], told["paper"], told["provenance"]
    yield "Per cent, with 95 % Wilson intervals.\n"
    yield f"| clean traffic, {clean['images']:,} test images | bare | guarded |"
    yield "|---|---|---|"
    yield f"| answered rightly | {share(clean['bare_accuracy'])} | {share(clean['guarded_accuracy'])} |"
    yield f"| refused, at a budget of {100 * clean['budget']:g} | | {share(clean['refused'])} |"
    yield f"| benign callers ever flagged, of {clean['callers_flagged']['n']} | | {share(clean['callers_flagged'])} |"
    yield ""
    yield "| attack | how | inputs | success, bare | success, guarded | detected |"
    yield "|---|---|---|---|---|---|"
    for attack in told["attacks"]:
        bound = f"{attack['norm']} ≤ {attack['eps']:g}"
        shares = " | ".join(share(attack[key]) for key in ("bare_success", "guarded_success", "detected"))
        yield f"| {attack['title']} ({bound}) | {attack['access']} | {attack['victims']} | {shares} |"
    measured = paper["false_positive_rate"]["measured"]
    yield f"\nFeature squeezing alone, set to flag {share(measured)} of clean inputs: {paper_line(paper)}."
    yield (
        f"\nLatency of one image, guarded over bare: x {latency['ratio']:.2f} (quartiles {latency['quartiles'][0]:.2f} "
        f"to {latency['quartiles'][1]:.2f} of {latency['pairs']} interleaved pairs in one run)."
    )
    where = f"{told['data']['source']}, {made['machine']}"
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    yield f"\nMade by `{made['command']}` (seed {made['plan']['seed']}) on {where}; {versions}."


def paper_line(paper: dict[str, Any]) -> str:
    """What it detects beside what its authors report."""
    each = "; ".join(f"{title} {share(rate)}" for title, rate in paper["detected"].items())
    return (
        f"{each}; mean {100 * paper['mean']:.1f}. The paper: {100 * paper['paper']:.1f} at about 4 ({paper['source']})"
    )


def main(source: str = "build/demo/results.json") -> None:
    """Put the table between its marks."""
    told = json.loads(Path(source).read_text(encoding="utf-8"))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    text = "\n".join(table(told))
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
