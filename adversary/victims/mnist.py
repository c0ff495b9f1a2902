"""The MNIST victim: two convolutions and a small MLP, 207 thousand parameters, 99.3 % on the test set.

`python -m adversary.victims.mnist --out FILE.onnx` trains it (seeded, about two minutes on one core) and writes the
checkpoint that lies beside this file. The ONNX file takes `image`, FP32 [-1, 1, 28, 28] in [0, 1], and answers
`logits`, FP32 [-1, 10]. `load` rebuilds the torch module from its initialisers: white-box attacks see what is served.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adversary.data import mnist
from adversary.data.split import Split
from adversary.victims import making

CHECKPOINT = Path(__file__).with_name("mnist_cnn.onnx")
EPOCHS = 12
SEED = 7
BATCH = 128
LEARNING_RATE = 2e-3
SHIFT = 2  # pixels that a batch moves at most, up or down and sideways; digits have a wider border


class Victim(nn.Module):
    """(N, 1, 28, 28) in [0, 1] -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        x = functional.max_pool2d(torch.relu(self.conv1(image)), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc2(torch.relu(self.fc1(x.flatten(1))))
        return logits


def _shifted(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    return np.roll(mnist.unit(images), tuple(rng.integers(-SHIFT, SHIFT + 1, 2)), (2, 3))


def _adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate)


def train(
    split: Split, *, seed: int = SEED, epochs: int = EPOCHS, say: Callable[[str], None] = lambda _: None
) -> Victim:
    """Adam under a one-cycle rate, on one thread; the same seed and data give the same network."""
    recipe = making.Recipe(_shifted, _adam, LEARNING_RATE, BATCH)
    return making.train(Victim, recipe, split, seed=seed, epochs=epochs, say=say)


def accuracy(model: nn.Module, split: Split) -> float:
    """The share of images that the model labels right."""
    return making.accuracy(model, split, mnist.unit)


def export(model: Victim) -> bytes:
    """The model as an ONNX file with a free batch size."""
    return making.export(model, (1, 28, 28))


def load(path: Path = CHECKPOINT) -> Victim:
    """The torch module whose weights the ONNX file holds. Raises ValueError where it is another network."""
    return making.rebuilt(Victim(), path)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    return making.Command("mnist", mnist.load, train, accuracy, export, EPOCHS, SEED)(argv)


if __name__ == "__main__":
    raise SystemExit(main())
