"""The figures as Markdown tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import pages

BEGIN, END = "<!-- bench.detection: begin -->", "<!-- bench.detection: end -->"
NOTHING = "-"
_TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10", "photos": "Photographs (small)"}


def share(one: Mapping[str, Any] | None, *, interval: bool = True) -> str:
    """A rate in per cent."""
    if one is None or one.get("rate") is None or not one["n"]:
        return NOTHING
    low, high = one["interval_95"]
    within = f" ({100 * low:.1f} to {100 * high:.1f})" if interval else ""
    return f"{100 * one['rate']:.1f}{within}"


def area(one: Mapping[str, Any]) -> str:
    """An AUROC."""
    if one["value"] is None:
        return NOTHING
    low, high = one["interval_95"]
    return f"{one['value']:.3f} ({low:.3f} to {high:.3f})"


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def markdown(found: Mapping[str, Any]) -> str:
    """The whole."""
    lines = [made(found), "", "## What was asked for", "", *_bars(found)]
    for data, part in found["data"].items():
        lines += [f"## {_TITLES.get(data, data)}", "", _victim(part), "", *_data(part)]
    lines += ["## False positives", "", *_false_positives(found)]
    if found["backdoors"]:
        lines += ["## Backdoor triggers", "", *_triggers(found)]
    return "\n".join(lines).rstrip() + "\n"


def made(found: Mapping[str, Any]) -> str:
    """What made it."""
    by = found["made"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(by["versions"].items()))
    return f"Made by `{by['command']}`, seed {by['seed']}, on {by['machine']}; {versions}."


def _bars(found: Mapping[str, Any]) -> list[str]:
    rows = [(one["what"], one["wanted"], one["measured"], "yes" if one["held"] else "**no**") for one in found["bars"]]
    return grid(("what", "wanted", "measured", "held"), rows)


def _victim(part: Mapping[str, Any]) -> str:
    one = part["victim"]
    networks = ", ".join(f"{name} {digest}" for name, digest in one["networks"].items()) or "none"
    return (
        f"Victim {one['sha256'][:12]}, {100 * one['accuracy']:.1f} % right on {one['data']}; {one['attacked']:,} "
        f"images attacked, {one['quiet']:,} others for false positives; the profile calibrated on "
        f"{one['calibration_rows']:,} clean rows, its stages taught on {one['learned_rows'] or 0:,} others. "
        f"Networks: {networks}."
    )


def _data(part: Mapping[str, Any]) -> Iterator[str]:
    if part.get("attacks"):
        yield from ("Attacks on the bare model:", "", *_attacks(part["attacks"]))
        yield from ("Detected by all detectors together, per cent of successful inputs:", "", *_combined(part))
        yield from ("Each detector, AUROC against other clean inputs:", "", *_areas(part))
        for rate in ("1", "5"):
            words = f"Each detector, per cent detected at {rate} % false positives (threshold at that quantile):"
            yield from (words, "", *_at(part, f"tpr_at_{rate}_fpr"))
    if part.get("purifiers"):
        words = "Accuracy behind each purifier, per cent (attacks made for the bare model; the last column through it):"
        yield from (words, "", *_purifiers(part))
    if part.get("adaptive"):
        yield from ("Attackers who know Guard's weights, per cent:", "", *_adaptive(part["adaptive"]))
    if part.get("costs"):
        yield from ("Cost of a row:", "", *_costs(part["costs"]))


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            one["attack"],
            f"{one['norm']} <= {one['eps']:.4g}",
            f"{one['budget']:,}",
            str(one["success"]["n"]),
            share(one["success"]),
            NOTHING if one["median_l2"] is None else f"{one['median_l2']:.3g}",
            one["source"],
        )
        for one in attacks
    ]
    return grid(("attack", "bound", "gradients at most", "n", "success, %", "median l2", "source"), rows)


def _combined(part: Mapping[str, Any]) -> list[str]:
    combinations = part["combinations"]
    headings = [
        f"{one['detectors']}, {100 * one['budget']:g} %"
        + (f", views where p <= {one['escalate_below']:g}" if one["escalate_below"] is not None else "")
        for one in combinations
    ]
    rows = [
        (name, str(combinations[0]["attacks"][name]["n"]), *(share(one["attacks"][name]) for one in combinations))
        for name in combinations[0]["attacks"]
    ]
    means = ("" if one["mean"] is None else f"**{100 * one['mean']:.1f}**" for one in combinations)
    rows += [
        ("**mean**", "", *means),
        ("worst", "", *(str(one["worst"]) for one in combinations)),
        ("false positives", str(combinations[0]["false_positives"]["n"]),
         *(share(one["false_positives"]) for one in combinations)),
        ("clean rows shown to view detectors", "",
         *(share(one["looked_at_closely"], interval=False) for one in combinations)),
    ]  # fmt: skip
    return grid(("attack", "n", *headings), rows)


def _areas(part: Mapping[str, Any]) -> list[str]:
    detectors = part["detectors"]
    attacks = list(next(iter(detectors.values())))
    rows = [(name, *(area(cells[attack]["auroc"]) for attack in attacks)) for name, cells in detectors.items()]
    return grid(("detector", *attacks), rows)


def _at(part: Mapping[str, Any], which: str) -> list[str]:
    detectors = part["detectors"]
    attacks = list(next(iter(detectors.values())))
    rows = [(name, *(share(cells[attack][which]) for attack in attacks)) for name, cells in detectors.items()]
    return grid(("detector", *attacks), rows)


def _purifiers(part: Mapping[str, Any]) -> list[str]:
    purifiers = part["purifiers"]
    attacks = list(next(iter(purifiers.values()))["robust"])
    bare = purifiers["none"]["clean"]["rate"]
    rows = []
    for name, one in purifiers.items():
        lost = "" if name == "none" else f"{100 * (bare - one['clean']['rate']):.1f}"
        cells = (share(one["robust"][attack], interval=False) for attack in attacks)
        through = share(one.get("robust_adaptive")) if "robust_adaptive" in one else NOTHING
        rows.append((name, str(one["upstream_rows"]), share(one["clean"]), lost, *cells, through))
    headings = ("purifier", "upstream rows", "clean", "lost", *attacks, "adaptive")
    return grid(headings, rows)


def _adaptive(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    combinations = list(entries[0]["detected"])
    rows = []
    for one in entries:
        cells = []
        for which in combinations:
            detected, passes = one["detected"][which], one["passes"][which]
            cells += [share(detected["5"]), share(passes["5"], interval=False), share(detected["1"])]
        rows.append((one["attacker"], share(one["success"], interval=False), *cells))
    headings = [
        heading
        for which in combinations
        for heading in (f"{which}: detected at 5 %", "succeeds and passes at 5 %", "detected at 1 %")
    ]
    whole = grid(("attacker", "success on the bare model", *headings), rows)
    names = list(entries[0]["alone_at_5_fpr"])
    alone = [
        (one["attacker"], *(share(one["alone_at_5_fpr"][name], interval=False) for name in names))
        for one in entries
        if "alone_at_5_fpr" in one
    ]
    words = "Each detector alone on these, per cent of successful inputs at 5 % false positives:"
    return [*whole, words, "", *grid(("attacker", *names), alone)]


def _costs(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    batches = list(entries[0]["cpu_ms_a_row_by_batch"])
    rows = [
        (one["stage"], *(f"{one['cpu_ms_a_row_by_batch'][batch]:.3g}" for batch in batches), str(one["upstream_rows"]))
        for one in entries
    ]
    return grid(("stage", *(f"CPU ms, calls of {batch}" for batch in batches), "upstream rows"), rows)


def _false_positives(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            _TITLES.get(entry["data"], entry["data"]),
            one["detectors"],
            f"{100 * one['budget']:g} %",
            f"{share(one['batch_1'])}, n {one['batch_1']['n']:,}",
            f"{share(one['batch_32'])}, n {one['batch_32']['n']:,}",
            str(one["decisions_that_differ"]),
        )
        for entry in found["false_positives"]
        for one in entry["rates"]
    ]
    headings = ("data", "detectors", "budget", "calls of 1, %", "calls of 32, %", "decisions that differ")
    return grid(headings, rows)


def _triggers(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for one in found["backdoors"]:
        cells = (share(one[f"at_{rate}_frr"][which]) for rate in ("1", "5") for which in ("far", "measured_frr"))
        rows.append(
            (one["detector"], one["trigger"], share(one["trigger_success"]), area(one["auroc"]), *cells,
             str(one["upstream_rows"]), one["published"])
        )  # fmt: skip
    headings = (
        "detector", "trigger", "trigger obeyed, %", "AUROC", "FAR at 1 % FRR", "FRR measured", "FAR at 5 % FRR",
        "FRR measured", "upstream rows", "published",
    )  # fmt: skip
    return grid(headings, rows)


def put(page: Path, text: str) -> None:
    """Between the page's marks."""
    pages.put(page, text, begin=BEGIN, end=END, title="Detectors and purifiers, measured")
