"""The CIFAR-10 victim: a small residual network, 482 thousand parameters, 86.7 % on the test set.

`python -m adversary.victims.cifar10 --out FILE.onnx` trains it on half of the training split (seeded, about 25 minutes
on one core) and writes the checkpoint that lies beside this file. The ONNX file takes `image`, FP32 [-1, 3, 32, 32] in
[0, 1], and answers `logits`, FP32 [-1, 10]. What is served has its batch normalisation folded into its convolutions;
`load` rebuilds that same torch module from the file's initialisers: white-box attacks see what is served.

Source: He et al. 2016, arXiv:1512.03385 (residual blocks).
Cost:   24 million multiplications an image.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adversary.data import cifar10
from adversary.data.split import Split
from adversary.victims import making

CHECKPOINT = Path(__file__).with_name("cifar10_resnet.onnx")
EPOCHS = 22
SEED = 7
BATCH = 128
LEARNING_RATE = 0.1
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
SHIFT = 4  # pixels that an image moves at most, up or down and sideways
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of the training split, by channel


def _convolution(inside: int, outside: int, *, folded: bool) -> nn.Module:
    if folded:
        return nn.Conv2d(inside, outside, 3, padding=1)
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside))


class Residual(nn.Module):
    """x + what two convolutions make of it."""

    def __init__(self, width: int, *, folded: bool) -> None:
        super().__init__()
        self.first = _convolution(width, width, folded=folded)
        self.second = _convolution(width, width, folded=folded)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return x + torch.relu(self.second(torch.relu(self.first(x))))


class Victim(nn.Module):
    """(N, 3, 32, 32) in [0, 1] -> (N, 10) logits. folded: as it is served; else as it learns."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *, folded: bool = True) -> None:
        super().__init__()
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.widen1, self.block1 = _convolution(3, 32, folded=folded), Residual(32, folded=folded)
        self.widen2, self.block2 = _convolution(32, 64, folded=folded), Residual(64, folded=folded)
        self.widen3, self.block3 = _convolution(64, 128, folded=folded), Residual(128, folded=folded)
        self.head = nn.Linear(128, len(cifar10.CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        x = (image - self.mean) / self.deviation
        x = self.block1(torch.relu(functional.max_pool2d(self.widen1(x), 2)))
        x = self.block2(torch.relu(functional.max_pool2d(self.widen2(x), 2)))
        x = self.block3(torch.relu(functional.max_pool2d(self.widen3(x), 2)))
        logits: Tensor = self.head(functional.max_pool2d(x, 4).flatten(1))
        return logits


def fold(learned: Victim) -> Victim:
    """A network that has learned -> one that answers the same without batch normalisation."""
    made = Victim()
    for name, module in made.named_modules():
        if isinstance(module, nn.Conv2d):
            convolution, normalisation = cast(
                "tuple[nn.Conv2d, nn.BatchNorm2d]", learned.get_submodule(name).children()
            )
            module.load_state_dict(fuse_conv_bn_eval(convolution, normalisation).state_dict())
    made.head.load_state_dict(learned.head.state_dict())
    return made.eval()


def _moved(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Each image on its own: shifted, the gap filled with its mirror image, and half of them turned left to right."""
    n, side = len(images), cifar10.SIDE
    wide = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "reflect")
    rows, columns = (rng.integers(0, 2 * SHIFT + 1, (n, 1)) + np.arange(side) for _ in range(2))
    turned = rng.random(n) < 0.5  # noqa: PLR2004 - half
    columns[turned] = columns[turned, ::-1]
    moved = wide[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return np.asarray(moved.transpose(0, 3, 1, 2), np.float32) / np.float32(255.0)


def _learner() -> Victim:
    model: Any = Victim(folded=False)
    return cast("Victim", model.to(memory_format=torch.channels_last))  # a quarter faster


def _sgd(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)


def train(
    split: Split, *, seed: int = SEED, epochs: int = EPOCHS, say: Callable[[str], None] = lambda _: None
) -> Victim:
    """SGD under a one-cycle rate, on one thread; the same seed and data give the same network."""
    recipe = making.Recipe(_moved, _sgd, LEARNING_RATE, BATCH)
    return fold(making.train(_learner, recipe, split, seed=seed, epochs=epochs, say=say))


def accuracy(model: nn.Module, split: Split) -> float:
    """The share of images that the model labels right."""
    return making.accuracy(model, split, cifar10.unit)


def export(model: Victim) -> bytes:
    """The model as an ONNX file with a free batch size."""
    return making.export(model, (3, cifar10.SIDE, cifar10.SIDE))


def load(path: Path = CHECKPOINT) -> Victim:
    """The torch module whose weights the ONNX file holds. Raises ValueError where it is another network."""
    return making.rebuilt(Victim(), path)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    return making.Command("cifar10", cifar10.load, train, accuracy, export, EPOCHS, SEED)(argv)


if __name__ == "__main__":
    raise SystemExit(main())
