"""The linear MNIST victim: softmax regression, 7,850 parameters, 92 % on the test set; what equation solving is for.

`python -m adversary.victims.mnist_linear --out FILE.onnx` trains it (seeded, some seconds) and writes the checkpoint
that lies beside this file. The ONNX file takes `image`, FP32 [-1, 1, 28, 28] in [0, 1], and answers `logits`,
FP32 [-1, 10].
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adversary.data import mnist
from adversary.data.split import Split
from adversary.victims import making

CHECKPOINT = Path(__file__).with_name("mnist_linear.onnx")
EPOCHS = 10
SEED = 7
LEARNING_RATE = 5e-3


class Victim(nn.Module):
    """(N, 1, 28, 28) in [0, 1] -> (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.linear(image.flatten(1))
        return logits


def _as_they_are(images: NDArray[np.uint8], _rng: np.random.Generator) -> NDArray[np.float32]:
    return mnist.unit(images)


def _adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate)


def train(
    split: Split, *, seed: int = SEED, epochs: int = EPOCHS, say: Callable[[str], None] = lambda _: None
) -> Victim:
    """Adam under a one-cycle rate; the same seed and data give the same network."""
    recipe = making.Recipe(_as_they_are, _adam, LEARNING_RATE)
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
    return making.Command("mnist_linear", mnist.load, train, accuracy, export, EPOCHS, SEED)(argv)


if __name__ == "__main__":
    raise SystemExit(main())
