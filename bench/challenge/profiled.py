"""A profile with a known curve: what `guard fit --stage monitor/extraction_budget` once learned, without the minutes.

The curves are those of `python -m bench.monitors budget` for the same victims, seed 0: agreement of students of so many
clean answers. That of MNIST is in docs/results/monitors.json.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from adversary.attack import Array
from bench.monitors.ground import Ground
from guard.calibration import Calibration
from guard.extraction_budget import Curve
from guard.fit_clean import Clean
from guard.fit_profile import Options, fit
from guard.fit_stages import Wanted
from guard.monitors.extraction_budget import ExtractionBudget
from guard.profile import Profile, StageFit, save_profile, stage_key, stage_options
from guard.proxy.ask import ServedModel
from guard.settings import Embedded

COUNTS = (10, 30, 100, 300, 1000, 3000, 8000)
AGREEMENT: Mapping[str, tuple[float, ...]] = {
    "mnist": (0.435, 0.7025, 0.921, 0.9615, 0.98, 0.9835, 0.9915),
    "cifar10": (0.1685, 0.22525, 0.33275, 0.465, 0.659, 0.748, 0.823),
}
_CLEAN = 200


def points(data: str) -> Mapping[str, Array]:
    """counts and agreement, as the monitor keeps them."""
    return {"counts": np.array(COUNTS, np.int64), "agreement": np.array(AGREEMENT[data])}


def curve(data: str) -> Curve:
    """What the monitor works with."""
    arrays = points(data)
    return Curve.of(arrays["counts"], arrays["agreement"])


def make(on: Ground, directory: Path) -> Profile:
    """The victim's profile, with the monitor alone."""
    clean = Clean(arrays={"image": on.unit(on.clean.images[:_CLEAN])})
    options = Options(stages=(Wanted("detector", "input_statistics"),), held_out=0.0)
    with ServedModel.embedded(Embedded(file=on.onnx, max_batch_rows=256), on.name, batch=128) as model:
        made = fit(model, clean, options).profile
    known = StageFit(stage_options(ExtractionBudget()), Calibration.of(np.zeros(1)), arrays=points(on.name))
    made = replace(made, stages={stage_key("monitor", "extraction_budget"): known}, networks={})
    save_profile(made, directory)
    return made
