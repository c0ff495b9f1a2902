"""The CIFAR-10 victim that remembers: two convolutions and a dense layer, fitted to 2,500 images until all are known.

Source: Shokri et al. 2017, arXiv:1610.05820, section VI (CIFAR-10: two convolutions with max pooling, a dense layer of
        128, tanh; 2,500 images are their smallest training set). What it has seen it answers otherwise than what it has
        not: this is what membership inference is measured on.

`python -m adversary.victims.cifar10_overfit --out FILE.onnx` trains it (seeded, two minutes on one core) and writes
the checkpoint that lies beside this file: `image`, FP32 [-1, 3, 32, 32] in [0, 1] -> `logits`, FP32 [-1, 10].
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adversary.data import cifar10
from adversary.data.split import Split
from adversary.victims import making
from adversary.victims.cifar10 import accuracy

CHECKPOINT = Path(__file__).with_name("cifar10_overfit.onnx")
MEMBERS = 2500  # it has learned from the first so many of `learn`
EPOCHS = 40
SEED = 7
BATCH = 50
LEARNING_RATE = 1e-3


class Victim(nn.Module):
    """(N, 3, 32, 32) in [0, 1] -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.fc1 = nn.Linear(32 * 8 * 8, 128)
        self.fc2 = nn.Linear(128, len(cifar10.CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        x = functional.max_pool2d(torch.tanh(self.conv1(image)), 2)
        x = functional.max_pool2d(torch.tanh(self.conv2(x)), 2)
        logits: Tensor = self.fc2(torch.tanh(self.fc1(x.flatten(1))))
        return logits


def _still(images: NDArray[np.uint8], _rng: np.random.Generator) -> NDArray[np.float32]:
    return cifar10.unit(images)


def _adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate)


def train(
    split: Split, *, seed: int = SEED, epochs: int = EPOCHS, say: Callable[[str], None] = lambda _: None
) -> Victim:
    """Adam under a one-cycle rate, no augmentation, no decay; the same seed and data give the same network."""
    recipe = making.Recipe(_still, _adam, LEARNING_RATE, BATCH)
    return making.train(Victim, recipe, split, seed=seed, epochs=epochs, say=say)


def export(model: Victim) -> bytes:
    """The model as an ONNX file with a free batch size."""
    return making.export(model, (3, cifar10.SIDE, cifar10.SIDE))


def load(path: Path = CHECKPOINT) -> Victim:
    """The torch module whose weights the ONNX file holds. Raises ValueError where it is another network."""
    return making.rebuilt(Victim(), path)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    command = making.Command("cifar10_overfit", cifar10.load, train, accuracy, export, EPOCHS, SEED, MEMBERS)
    return command(argv)


if __name__ == "__main__":
    raise SystemExit(main())
