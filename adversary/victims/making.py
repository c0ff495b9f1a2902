"""What the making of every victim has in common: training, measuring, the ONNX file and back, the command."""

import argparse
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from adversary.data.cache import DataUnavailable, write_atomic
from adversary.data.split import Split
from adversary.gradients import one_thread, predict

Module = TypeVar("Module", bound=nn.Module)
Say = Callable[[str], None]
Unit = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class DataSet(Protocol):
    """What victims learn from, and what they are measured on."""

    @property
    def learn(self) -> Split:
        """What victims learn from."""
        ...

    @property
    def test(self) -> Split:
        """What nobody learns from."""
        ...

    @property
    def source(self) -> str:
        """Where it came from."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network learns.

    prepare:    some images -> (batch, ...) float32 in [0, 1], moved about as the training wants it.
    optimizer:  of its parameters, with a learning rate.
    rate:       the largest of the one cycle.
    """

    prepare: Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.float32]]
    optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
    rate: float
    batch: int = 128


def train(
    network: Callable[[], Module], recipe: Recipe, split: Split, *, seed: int, epochs: int, say: Say = lambda _: None
) -> Module:
    """A one-cycle rate, on one thread; the same seed and data give the same network."""
    batch = min(recipe.batch, len(split))
    count = len(split) // batch
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rng, model = np.random.default_rng(seed), network()
        optimizer = recipe.optimizer(list(model.parameters()), recipe.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=max(1, epochs * count))
        for epoch in range(epochs):
            for rows in rng.permutation(len(split))[: count * batch].reshape(-1, batch):
                x = torch.from_numpy(recipe.prepare(split.images[rows], rng))
                loss = _step(model, optimizer, x, torch.from_numpy(split.labels[rows]))
                schedule.step()
            say(f"epoch {epoch + 1}/{epochs}: loss of the last batch {loss:.4f}")
    return model.eval()


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    loss = functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def accuracy(model: nn.Module, split: Split, unit: Unit) -> float:
    """The share of images that the model labels right."""
    parts = zip(np.array_split(split.images, 10), np.array_split(split.labels, 10), strict=True)
    return sum(int((predict(model, unit(images)) == labels).sum()) for images, labels in parts) / len(split)


def export(model: nn.Module, shape: Sequence[int]) -> bytes:
    """The model as an ONNX file with a free batch size, without traces of the machine that made it."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch about itself
        path = Path(directory) / "victim.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(2, *shape),),
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


def rebuilt(model: Module, path: Path) -> Module:
    """The module, with the weights that the ONNX file holds. Raises ValueError where it is another network."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in weights or weights[name].shape != tuple(tensor.shape):
            raise ValueError(f"{path} is not this victim: {name} {tuple(tensor.shape)} is missing")
    model.load_state_dict({name: torch.from_numpy(weights[name].copy()) for name in wanted})
    return model.eval()


def say(text: str) -> None:
    """Progress of a command."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command line


@dataclass(frozen=True, slots=True)
class Command:
    """`python -m adversary.victims.NAME`: train, measure, write.

    members:  learn from the first so many alone.
    """

    name: str
    load: Callable[[Path | None, Say], DataSet]
    train: Callable[..., Any]
    accuracy: Callable[[Any, Split], float]
    export: Callable[[Any], bytes]
    epochs: int
    seed: int
    members: int | None = None

    def __call__(self, argv: Sequence[str] | None) -> int:
        """The exit status."""
        parser = argparse.ArgumentParser(prog=f"python -m adversary.victims.{self.name}", description="Train a victim.")
        parser.add_argument("--out", type=Path, required=True, help="where to write the ONNX file")
        parser.add_argument("--data", type=Path, help="directory of the data set (default: fetched and cached)")
        parser.add_argument("--seed", type=int, default=self.seed)
        parser.add_argument("--epochs", type=int, default=self.epochs)
        options = parser.parse_args(argv)
        try:
            data = self.load(options.data, say)
        except DataUnavailable as error:
            say(str(error))
            return 1
        learn = data.learn.part(slice(self.members))
        model = self.train(learn, seed=options.seed, epochs=options.epochs, say=say)
        write_atomic(options.out, self.export(model))
        say(
            f"{options.out}: test accuracy {self.accuracy(model, data.test):.4f} on {len(data.test):,} images, "
            f"{self.accuracy(model, learn):.4f} on the {len(learn):,} it learned from ({data.source})"
        )
        return 0
