"""The inputs that are sent, and the endpoints that take them: processes of their own."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from adversary import processes, serving
from adversary.campaign import Model, Serve

FAST, BARE = "prepared answers", "Guard, bare"
MODEL = "mnist"
CLASSES = 10
_CHECKPOINT = Path(serving.__file__).parent / "victims" / "mnist_cnn.onnx"
_START_S = 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of input: float32, channels first."""

    name: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Of one input on the wire."""
        return 4 * prod(self.shape)


MNIST, CIFAR, PHOTO = Kind("MNIST", (1, 28, 28)), Kind("CIFAR-10", (3, 32, 32)), Kind("224x224", (3, 224, 224))
KINDS = (MNIST, CIFAR, PHOTO)


@contextmanager
def fast(directory: Path) -> Iterator[Mapping[str, str]]:
    """The servers of `bench.oracle.fast`; yields their addresses by kind."""
    log = directory / "fast.log"
    with processes.child([sys.executable, "-m", "bench.oracle.fast"], log, processes.environment("")) as process:
        until = time.monotonic() + _START_S
        while not log.read_text().endswith("}\n"):
            if process.poll() is not None or time.monotonic() > until:
                raise processes.ChildFailed(f"bench.oracle.fast is not ready:\n{log.read_text()}")
            time.sleep(0.05)
        yield json.loads(log.read_text().splitlines()[-1])


@contextmanager
def bare(directory: Path) -> Iterator[str]:
    """`guard serve` without a single stage, the MNIST victim inside; yields its address."""
    settings = serving.settings_of(Serve(), Model(name=MODEL, onnx=_CHECKPOINT), None)
    with serving.served(settings, "a secret that nobody knows", directory) as (address, _):
        yield address
