"""The networks that `guard fit` trains: torch is imported when one is asked for, and never to serve.

    auxiliary     answers like the served model, and withstands small perturbations (guard.learning.auxiliary)
    autoencoder   rebuilds clean inputs (guard.learning.autoencoder)
    denoiser      takes perturbations away (guard.learning.denoiser)

Each is one ONNX file, float32, with a free batch axis and one input in unit form: `x`, or where `x` is the output,
`input`. The same material and seed give
the same file on the same machine: everything runs on one thread.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast

from guard.types import Material

__all__ = ["NAMES", "Tell", "adopt_backbone", "train"]
NAMES = ("auxiliary", "autoencoder", "denoiser")  # in the order in which they are trained: a later one may use earlier
Tell = Callable[[str, int, int], None]  # what is being done, how much of it, of how much


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def train(
    name: str, material: Material, raw: Mapping[str, bytes], tell: Tell = _silent, options: Any | None = None
) -> bytes:
    """The named network as an ONNX file.

    raw:      the ONNX files trained so far, by name.
    options:  of that network's module; its defaults where there are none.
    Raises ValueError, with words, for material that it cannot learn from.
    """
    if name not in NAMES:
        raise ValueError(f"there is no network {name!r} to train: {', '.join(NAMES)}")
    module = importlib.import_module(f"guard.learning.{name}")
    return cast("bytes", module.train(material, raw, tell, options))


def adopt_backbone(raw: bytes, material: Material, tell: Tell = _silent) -> bytes:
    """An auxiliary out of a network that gives features: see `guard.learning.backbone`. Raises ValueError."""
    module = importlib.import_module("guard.learning.backbone")
    return cast("bytes", module.adopt(raw, material, tell))
