"""STRIP and SCALE-UP on a poisoned CIFAR-10 victim: what triggered inputs pass at 1 % and 5 % false rejections.

The threshold is a quantile of the scores of clean inputs that are not counted; false rejections are counted on others,
false acceptances on stamped images of other classes than the trigger's own that get its label. Published figures are
their authors', on their own victims (methods and sources: guard.detectors.strip, guard.detectors.scale_up).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary.attack import Array
from adversary.data import cifar10
from adversary.data.cache import sha256
from adversary.scores import Rate, rate, threshold_at
from adversary.victims import cifar10_poisoned
from bench.detection import stagework
from bench.detection.figures import RATES, Area, area
from guard.types import Material

DETECTORS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("STRIP, 10 overlays", "strip", {}),
    ("STRIP, 100 overlays", "strip", {"overlays": 100}),
    ("SCALE-UP", "scale_up", {}),
)
PUBLISHED = {
    "STRIP, 10 overlays": "none at 10 overlays on CIFAR-10",
    "STRIP, 100 overlays": "FAR 0 % at FRR 1 % (patch triggers, CIFAR-10)",
    "SCALE-UP": "AUROC 0.957 (BadNets), 0.929 to 0.962 (other triggers)",
}
SEED = 0


@dataclass(frozen=True, slots=True)
class Passed:
    """One detector on one trigger. far, frr: at RATES; the threshold is of clean inputs that are in neither."""

    detector: str
    trigger: str
    obeyed: Rate
    auroc: Area
    far: tuple[Rate, ...]
    frr: tuple[Rate, ...]
    upstream_rows: int

    def plain(self) -> dict[str, Any]:
        """As data for JSON."""
        at = {
            f"at_{100 * share:g}_frr": {"far": far.plain(), "measured_frr": frr.plain()}
            for share, far, frr in zip(RATES, self.far, self.frr, strict=True)
        }
        return {
            "detector": self.detector,
            "trigger": self.trigger,
            "trigger_success": self.obeyed.plain(),
            "auroc": self.auroc.plain(),
            **at,
            "upstream_rows": self.upstream_rows,
            "published": PUBLISHED[self.detector],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Poisoned:
    """A poisoned victim at work: its rows to calibrate with, other clean ones, and the stamped ones that obey."""

    upstream: stagework.Upstream
    material: Material
    calibrating: Array
    clean: Array
    stamped: Mapping[str, Array]
    obeyed: Mapping[str, Rate]
    accuracy: float


def poisoned(rows: int) -> Poisoned:
    """The committed victim, and at most so many rows of each sort."""
    data, upstream = cifar10.load(), stagework.Upstream(cifar10_poisoned.CHECKPOINT)
    order = np.random.default_rng(SEED).permutation(len(data.clean))
    x = cifar10.unit(data.clean.images[order])
    learned, calibrating = x[: len(x) // 2], x[len(x) // 2 :][: 2 * rows]
    half = len(data.test) // 2
    clean = cifar10.unit(data.test.images[half : half + rows])
    stamped, obeyed = {}, {}
    for name, backdoor in cifar10_poisoned.BACKDOORS.items():
        others = np.flatnonzero(data.test.labels[:half] != backdoor.label)[:rows]
        made = backdoor.stamp(cifar10.unit(data.test.images[others]))
        won = upstream.labels(made) == backdoor.label
        stamped[name], obeyed[name] = made[won], rate(won)
    test = cifar10.unit(data.test.images[half:])
    accuracy = float((upstream.labels(test) == data.test.labels[half:]).mean())
    unit = stagework.unit(learned)
    material = Material(unit, upstream.probabilities(unit[:1]).repeat(len(unit), 0), 10, seed=SEED)
    return Poisoned(upstream, material, calibrating, clean, stamped, obeyed, accuracy)


def digest() -> str:
    """Of the poisoned victim."""
    return sha256(cifar10_poisoned.CHECKPOINT.read_bytes())


def scores(on: Poisoned, stage: str, options: Mapping[str, Any]) -> dict[str, Array]:
    """One detector's, of `calibrating`, `clean` and each trigger's rows; and what else `passed` needs."""
    one = stagework.working("detector", stage, on.material, options=options)
    calibrating, rows = stagework.score(one, on.calibrating, on.upstream)
    found = {"calibrating": calibrating, "clean": stagework.score(one, on.clean, on.upstream)[0]}
    for trigger, stamped in on.stamped.items():
        found[f"stamped.{trigger}"] = stagework.score(one, stamped, on.upstream)[0]
        found[f"obeyed.{trigger}"] = np.array([on.obeyed[trigger].hits, on.obeyed[trigger].n])
    return {**found, "upstream_rows": np.array(rows), "accuracy": np.array(on.accuracy)}


def passed(name: str, found: Mapping[str, Array]) -> list[Passed]:
    """One detector on every trigger."""
    clean, thresholds = found["clean"], [threshold_at(found["calibrating"], share) for share in RATES]
    made = []
    for trigger in cifar10_poisoned.BACKDOORS:
        hostile, (hits, n) = found[f"stamped.{trigger}"], found[f"obeyed.{trigger}"]
        far = tuple(rate(hostile <= threshold) for threshold in thresholds)
        frr = tuple(rate(clean > threshold) for threshold in thresholds)
        rows = int(found["upstream_rows"])
        made.append(Passed(name, trigger, Rate(int(hits), int(n)), area(clean, hostile), far, frr, rows))
    return made
