"""`python -m bench.detection.choosing`: which few detectors, with which weights, seen on the `clean` split alone.

Four attacks (FGSM, PGD-40, DeepFool, C&W) are made of images of the `clean` split, which no victim has seen and no
table reports on; detectors are added, or weighed anew, one at a time, as long as the mean share that is detected at 1 %
and 5 % rises. The calibration rows are of that split, too: the shares are a little too good, and not for citing.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adversary import runner
from adversary.attack import Array
from adversary.gradients import one_thread
from bench.detection import fitted, scoring, stagework
from bench.detection.attacks import ATTACKS
from bench.detection.figures import RATES
from bench.detection.subjects import subject
from guard.calibration import Calibration, joint_threshold, weighted_least

ATTACKED_BY = ("fgsm", "pgd", "deepfool", "carlini-wagner")
SEED = 5
WEIGHTS = (1.0, 0.5, 0.25, 0.1)
_LEAST_GAIN = 1e-3


def crafted(data: str, images: int) -> dict[str, Array]:
    """By attack, (N, C, H, W): those that fool the victim."""
    on = subject(data)
    right = np.flatnonzero(stagework.Upstream(on.onnx).labels(on.clean_x) == on.clean_y)[:images]
    x, y = np.ascontiguousarray(on.clean_x[right]), on.clean_y[right]
    made = {}
    for one in ATTACKS[data]:
        if one.name in ATTACKED_BY:
            done = runner.craft(one.entry, on.model, x, y, eps=one.eps, budget=one.budget, seed=SEED, **one.options)
            made[one.name] = done.x_adv[stagework.Upstream(on.onnx).labels(done.x_adv) != y]
    return made


class Choice:
    """p-values of calibration rows and of attacks, and what any weights make of them."""

    def __init__(self, data: str, images: int) -> None:
        profile = fitted.profile(data)
        engine, upstream = scoring.engine(profile), stagework.Upstream(subject(data).onnx)
        fits = {key.partition("/")[2]: fit for key, fit in profile.stages.items() if fit.joint is not None}
        self.names = [name for name in fits if name not in fitted.AGAINST_TRIGGERS]
        known = {name: Calibration.of(np.asarray(fits[name].joint)) for name in self.names}
        self._clean = {name: known[name].own_p_values(np.asarray(fits[name].joint)) for name in self.names}
        self._hostile = {name: scoring.say(engine, upstream, x).p_values for name, x in crafted(data, images).items()}

    def detected(self, weights: Mapping[str, float]) -> Array:
        """(budgets, attacks) shares."""
        least = np.array(list(weights.values()))

        def statistic(p_values: Mapping[str, Array]) -> Array:
            return weighted_least(np.column_stack([p_values[name] for name in weights]), least)

        bounds = [joint_threshold(statistic(self._clean), budget) for budget in RATES]
        shares = [[float((statistic(p) <= bound).mean()) for p in self._hostile.values()] for bound in bounds]
        return np.array(shares)

    def greedy(self) -> dict[str, float]:
        """Detectors added, or weighed anew, while that helps."""
        best: dict[str, float] = {}
        reached = 0.0
        while True:
            tried = [{**best, name: weight} for name in self.names for weight in WEIGHTS]
            found = max(tried, key=lambda weights: self.detected(weights).mean())
            if self.detected(found).mean() < reached + _LEAST_GAIN:
                return best
            best, reached = found, float(self.detected(found).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Print the choice."""
    parser = argparse.ArgumentParser(prog="python -m bench.detection.choosing", description=main.__doc__)
    parser.add_argument("data", choices=[name for name in ATTACKS if ATTACKS[name]])
    parser.add_argument("--images", type=int, default=250, metavar="N", help="to attack (250)")
    options = parser.parse_args(argv)
    with one_thread():
        choice = Choice(options.data, options.images)
    for weights in (dict.fromkeys(choice.names, 1.0), _there(fitted.CHOSEN, choice), choice.greedy()):
        _show(weights, choice)
    return 0


def _there(weights: Mapping[str, float], choice: Choice) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if name in choice.names}


def _show(weights: Mapping[str, Any], choice: Choice) -> None:
    named = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    shares = "; ".join(
        f"at {100 * budget:g} %: {100 * row.mean():.1f} (worst {100 * row.min():.1f})"
        for budget, row in zip(RATES, choice.detected(weights), strict=True)
    )
    sys.stdout.write(f"{named}\n  detected, % of {', '.join(ATTACKED_BY)}: {shares}\n")


if __name__ == "__main__":
    raise SystemExit(main())
