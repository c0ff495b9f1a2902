"""The MNIST victim: two convolutions and a small MLP, 207 thousand parameters, 99.3 % on the test set.

`python -m adversary.victims.mnist --out FILE.onnx` trains it (seeded, about two minutes on one core) and writes the
checkpoint that lies beside this file. The ONNX file takes `image`, FP32 [-1, 1, 28, 28] in [0, 1], and answers
`logits`, FP32 [-1, 10]. `load` rebuilds the torch module from its initialisers: white-box attacks see what is served.
"""

import argparse
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from adversary.data import mnist
from adversary.data.cache import DataUnavailable, write_atomic
from adversary.data.split import Split
from adversary.gradients import one_thread

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


def train(
    split: Split, *, seed: int = SEED, epochs: int = EPOCHS, say: Callable[[str], None] = lambda _: None
) -> Victim:
    """Adam under a one-cycle rate, on one thread; the same seed and data give the same network."""
    with one_thread():
        return _train(split, seed=seed, epochs=epochs, say=say)


def _train(split: Split, *, seed: int, epochs: int, say: Callable[[str], None]) -> Victim:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Victim()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    steps = epochs * (len(split) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=max(1, steps))
    for epoch in range(epochs):
        shuffled = rng.permutation(len(split))[: len(split) // BATCH * BATCH].reshape(-1, BATCH)
        for rows in shuffled:
            x = np.roll(mnist.unit(split.images[rows]), tuple(rng.integers(-SHIFT, SHIFT + 1, 2)), (2, 3))
            loss = functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(split.labels[rows]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        say(f"epoch {epoch + 1}/{epochs}: loss of the last batch {loss.item():.4f}")
    return model.eval()


def accuracy(model: nn.Module, split: Split) -> float:
    """The share of images that the model labels right."""
    with torch.no_grad():
        hits = sum(
            int((model(torch.from_numpy(mnist.unit(images))).argmax(1).numpy() == labels).sum())
            for images, labels in zip(np.array_split(split.images, 10), np.array_split(split.labels, 10), strict=True)
        )
    return hits / len(split)


def export(model: Victim) -> bytes:
    """The model as an ONNX file with a free batch size, without traces of the machine that made it."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch about itself
        path = Path(directory) / "victim.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(2, 1, 28, 28),),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        )
        proto = onnx.load(path)
    graph = proto.graph
    parts: list[Any] = [proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()


def load(path: Path = CHECKPOINT) -> Victim:
    """The torch module whose weights the ONNX file holds. Raises ValueError where it is another network."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    model = Victim()
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in weights or weights[name].shape != tuple(tensor.shape):
            raise ValueError(f"{path} is not this victim: {name} {tuple(tensor.shape)} is missing")
    model.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in wanted})
    return model.eval()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(prog="python -m adversary.victims.mnist", description="Train the MNIST victim.")
    parser.add_argument("--out", type=Path, required=True, help="where to write the ONNX file")
    parser.add_argument("--data", type=Path, help="directory of MNIST's IDX files (default: fetched and cached)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args(argv)
    try:
        data = mnist.load(options.data, _say)
    except DataUnavailable as error:
        _say(str(error))
        return 1
    model = train(data.learn, seed=options.seed, epochs=options.epochs, say=_say)
    write_atomic(options.out, export(model))
    _say(f"{options.out}: test accuracy {accuracy(model, data.test):.4f} on {len(data.test):,} images ({data.source})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
