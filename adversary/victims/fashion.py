"""The Fashion-MNIST victim: the network of adversary.victims.mnist, trained on clothing, 90.9 % on the test set.

`python -m adversary.victims.fashion --out FILE.onnx` trains it (seeded, two minutes on one core) and writes the
checkpoint that lies beside this file. Images are turned left to right at random where digits are shifted: clothes have
no border to be shifted into.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adversary.data import fashion, mnist
from adversary.data.split import Split
from adversary.victims import making
from adversary.victims.mnist import BATCH, LEARNING_RATE, SEED, Victim, accuracy, export, load

__all__ = ["CHECKPOINT", "EPOCHS", "accuracy", "export", "load", "main", "train"]
CHECKPOINT = Path(__file__).with_name("fashion_cnn.onnx")
EPOCHS = 10


def _turned(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    x = mnist.unit(images)
    turned = rng.random(len(x)) < 0.5  # noqa: PLR2004 - half
    x[turned] = x[turned, :, :, ::-1]
    return x


def _adam(parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, weight_decay=1e-4)


def train(
    split: Split, *, seed: int = SEED, epochs: int = EPOCHS, say: Callable[[str], None] = lambda _: None
) -> Victim:
    """Adam under a one-cycle rate, on one thread; the same seed and data give the same network."""
    recipe = making.Recipe(_turned, _adam, LEARNING_RATE, BATCH)
    return making.train(Victim, recipe, split, seed=seed, epochs=epochs, say=say)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    return making.Command("fashion", fashion.load, train, accuracy, export, EPOCHS, SEED)(argv)


if __name__ == "__main__":
    raise SystemExit(main())
