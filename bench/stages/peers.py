"""The same methods in adversarial-robustness-toolbox, and how far its answers are from ours.

What is equal and what is not: bit depth and median are the same function. JPEG is, too, on images in 8 bits; others ART
cuts to 8 bits where ours rounds. Total variation is not: ART minimises a sum of norms of whole rows and columns of
differences, over a random share of the pixels, by ten steps of L-BFGS; ours solves Rudin, Osher and Fatemi's problem.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adversary.attack import Array
from bench.stages.inputs import Images
from guard import filters
from guard.purifiers.total_variation import TotalVariation

LIBRARY = "adversarial-robustness-toolbox"
EQUAL = 1e-6
STRAYS = 1e-5  # share of values that may differ: those half way between two levels
_CONVERGED = 3000  # iterations

Use = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether answers are equal within tolerance (None: not the same by design), and the figures."""

    within: bool | None
    words: str


@dataclass(frozen=True, slots=True)
class Peer:
    """One method: its name there, how it is made, how its answers are compared with ours (ours, theirs, images)."""

    name: str
    make: Callable[[Any], Any]
    compare: Callable[[Use, Use, Images], Agreement]


def installed() -> bool:
    """Whether ART is there: the extra `peers`."""
    return importlib.util.find_spec("art") is not None


def use(peer: Peer) -> Use:
    """Its method on a batch. Raises ImportError."""
    from art.defences import preprocessor  # noqa: PLC0415 - an extra

    made = peer.make(preprocessor)
    return lambda x: np.asarray(made(x)[0])


def _the_same(ours: Use, theirs: Use, images: Images) -> Agreement:
    a, b = ours(images.noisy), theirs(images.noisy)
    strays = int(np.count_nonzero(np.abs(a - b) > EQUAL))
    return Agreement(strays <= STRAYS * a.size, f"{strays} of {a.size:,} values differ by more than {EQUAL:g}")


def _on_8_bits(ours: Use, theirs: Use, images: Images) -> Agreement:
    most = float(np.abs(ours(images.clean) - theirs(images.clean)).max())
    mean = float(np.abs(ours(images.noisy) - theirs(images.noisy)).mean())
    on_others = f"on others, which ART cuts, {mean * 255:.2g}/255 in the mean"
    return Agreement(most <= EQUAL, f"on images in 8 bits at most {most * 255:.2g}/255 apart; {on_others}")


def _other_by_design(ours: Use, theirs: Use, images: Images) -> Agreement:
    few = slice(0, 4)
    clean, noisy = images.clean[few], images.noisy[few]
    weight = TotalVariation().weight
    answers = {"ours": ours(noisy), "ART's": theirs(noisy)}
    least = objective(filters.total_variation(noisy, weight, _CONVERGED), noisy, weight)
    far = {name: float(np.sqrt(np.mean((u - clean) ** 2))) for name, u in {"the input": noisy, **answers}.items()}
    above = {name: 100 * (objective(u, noisy, weight) / least - 1) for name, u in answers.items()}
    return Agreement(
        None,
        "not the same function: Rudin, Osher and Fatemi's objective above its least by "
        + ", ".join(f"{value:.2g} % ({name})" for name, value in above.items())
        + "; distance to the clean image, rms: "
        + ", ".join(f"{value:.3f} ({name})" for name, value in far.items()),
    )


def objective(u: Array, x: Array, weight: float) -> float:
    """Half of |u - x|^2 plus weight times the total variation of u, channel by channel."""
    across, down = np.zeros(u.shape), np.zeros(u.shape)
    across[:, :, :-1], down[:, :-1] = np.diff(u, axis=2), np.diff(u, axis=1)
    return float(0.5 * np.sum((u - x) ** 2.0) + weight * np.sum(np.hypot(across, down)))


PEERS: Mapping[str, Peer] = {
    "purifier bit_depth": Peer(
        "FeatureSqueezing, 4 bits", lambda art: art.FeatureSqueezing((0.0, 1.0), bit_depth=4), _the_same
    ),
    "purifier median": Peer("SpatialSmoothing, 3x3", lambda art: art.SpatialSmoothing(3), _the_same),
    "filter median_2": Peer("SpatialSmoothing, 2x2", lambda art: art.SpatialSmoothing(2), _the_same),
    "purifier jpeg": Peer(
        "JpegCompression, quality 75", lambda art: art.JpegCompression((0.0, 1.0), quality=75), _on_8_bits
    ),
    "purifier total_variation": Peer("TotalVarMin, its defaults", lambda art: art.TotalVarMin(), _other_by_design),
}
