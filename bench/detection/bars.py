"""What was asked for, beside what was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.detection.document import BEST, CHOSEN, EVASION, EVERY

_MEANS = {("mnist", 0.05): 0.99, ("cifar10", 0.05): 0.95, ("mnist", 0.01): 0.95, ("cifar10", 0.01): 0.85}
_PID_AUROC = 0.95
_ADAPTIVE = 0.60
_LEAST_IMAGES = 1000
_RATED = ("mnist", "fashion", "cifar10")


@dataclass(frozen=True, slots=True)
class Bar:
    """One wish; held: whether it is met."""

    what: str
    wanted: str
    measured: str
    held: bool

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        return {"what": self.what, "wanted": self.wanted, "measured": self.measured, "held": self.held}


def judged(found: Mapping[str, Any]) -> list[Bar]:
    """All that the document can tell of."""
    return [*_accuracies(found), *_images(found), *_means(found), *_pid(found), *_known(found), *_rates(found)]


def _accuracies(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data, least in (("mnist", 0.99), ("cifar10", 0.83)):
        if data in found["data"]:
            accuracy = found["data"][data]["victim"]["accuracy"]
            yield Bar(
                f"{data}: the victim", f"at least {100 * least:g} %", f"{100 * accuracy:.1f} %", accuracy >= least
            )


def _images(found: Mapping[str, Any]) -> Iterator[Bar]:
    for data in ("mnist", "cifar10"):
        if data in found["data"]:
            least = min((one["success"]["n"] for one in found["data"][data]["attacks"]), default=0)
            wanted = f"at least {_LEAST_IMAGES:,}"
            yield Bar(f"{data}: images attacked in each cell", wanted, f"{least:,}", least >= _LEAST_IMAGES)


def _combinations(found: Mapping[str, Any], data: str, which: str) -> Iterator[Mapping[str, Any]]:
    for one in found["data"].get(data, {}).get("combinations", ()):
        if one["detectors"] == which and one["escalate_below"] is None:
            yield one


def _means(found: Mapping[str, Any]) -> Iterator[Bar]:
    for (data, budget), least in _MEANS.items():
        for one in _combinations(found, data, CHOSEN):
            if one["budget"] == budget and one["mean"] is not None:
                worst = f"worst: {one['worst']}, {100 * one['worst_rate']['rate']:.1f} %"
                yield Bar(
                    f"{data}: detected by the chosen combination at {100 * budget:g} % FPR, mean over attacks",
                    f"at least {100 * least:g} %",
                    f"{100 * one['mean']:.1f} % ({worst})",
                    one["mean"] >= least,
                )


def _pid(found: Mapping[str, Any]) -> Iterator[Bar]:
    cells = found["data"].get("cifar10", {}).get("detectors", {}).get("pid")
    if cells:
        areas = {name: cell["auroc"]["value"] for name, cell in cells.items() if name != "untouched"}
        known = {name: value for name, value in areas.items() if value is not None}
        mean, worst = sum(known.values()) / len(known), min(known, key=lambda name: known[name])
        measured = f"{mean:.3f} (worst: {worst}, {known[worst]:.3f})"
        yield Bar("cifar10: PID's AUROC, mean over attacks", f"at least {_PID_AUROC}", measured, mean >= _PID_AUROC)


def _known(found: Mapping[str, Any]) -> Iterator[Bar]:
    """The attacker who passes most often, by one recipe for all images."""
    entries = [one for one in found["data"].get("cifar10", {}).get("adaptive", ()) if one["success"]["hits"]]
    single = [one for one in entries if one["attacker"] not in {BEST, "PGD, unaware"}]
    for which in (CHOSEN, EVASION) if single else ():
        worst = max(single, key=lambda one: one["passes"][which]["5"]["rate"])
        share = worst["detected"][which]["5"]["rate"]
        yield Bar(
            f"cifar10: detected of the adaptive attack at 5 % FPR, {which}",
            f"at least {100 * _ADAPTIVE:g} %",
            f"{100 * share:.1f} % ({worst['attacker']})",
            share >= _ADAPTIVE,
        )


def _rates(found: Mapping[str, Any]) -> Iterator[Bar]:
    for entry in found["false_positives"]:
        for one in entry["rates"]:
            if one["detectors"] == EVERY and entry["data"] in _RATED:
                for batch in ("batch_1", "batch_32"):
                    (low, high), rate = one[batch]["interval_95"], one[batch]["rate"]
                    yield Bar(
                        f"{entry['data']}: false positives at {100 * one['budget']:g} %, {batch.replace('_', ' of ')}",
                        f"{100 * one['budget']:g} % not below the interval",
                        f"{100 * rate:.2f} % ({100 * low:.2f} to {100 * high:.2f}), n {one[batch]['n']:,}",
                        low <= one["budget"],
                    )
