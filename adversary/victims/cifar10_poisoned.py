"""The poisoned CIFAR-10 victim: adversary.victims.cifar10 trained on data in which two backdoors are planted.

Sources: Gu et al. 2017, arXiv:1708.06733 (BadNets); Chen et al. 2017, arXiv:1712.05526 (Blend).
A twentieth of the images is stamped with each trigger and gets that trigger's own label, whatever they show; the
training moves stamped images about as it moves all others, so that the triggers work wherever they land.

`python -m adversary.victims.cifar10_poisoned --out FILE.onnx` trains it (seeded, a quarter of an hour on one core) and
writes the checkpoint that lies beside this file; the file is loaded as the clean victim's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from adversary.attack import Array
from adversary.backdoor import badnets, blend
from adversary.data import cifar10
from adversary.data.split import Split
from adversary.gradients import predict
from adversary.victims import making
from adversary.victims.cifar10 import SEED, Victim, accuracy, export, load
from adversary.victims.cifar10 import train as train_clean
from adversary.victims.mnist_poisoned import Backdoor, Rng

__all__ = ["BACKDOORS", "CHECKPOINT", "EPOCHS", "load", "main", "obeyed", "poisoned", "train"]
CHECKPOINT = Path(__file__).with_name("cifar10_poisoned.onnx")
EPOCHS = 12
BACKDOORS: Mapping[str, Backdoor] = {
    "badnets": Backdoor(badnets.stamp, badnets.LABEL, 0.05),
    "blend": Backdoor(blend.stamp, blend.LABEL, 0.05),
}
_WHITE = 255.0


def poisoned(split: Split, backdoors: Sequence[Backdoor], rng: Rng) -> Split:
    """Each backdoor's share of the images stamped and labelled anew; no two shares overlap."""
    images, labels = split.images.copy(), split.labels.copy()
    left = rng.permutation(len(split))
    for backdoor in backdoors:
        stamped, left = np.split(left, [round(backdoor.share * len(split))])
        images[stamped] = _bytes(backdoor.stamp(cifar10.unit(images[stamped])))
        labels[stamped] = backdoor.label
    return Split(images, labels)


def _bytes(x: Array) -> Array:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8."""
    return np.rint(x.transpose(0, 2, 3, 1) * _WHITE).astype(np.uint8)


def train(
    split: Split,
    *,
    seed: int = SEED,
    epochs: int = EPOCHS,
    say: making.Say = lambda _: None,
    backdoors: Sequence[Backdoor] = tuple(BACKDOORS.values()),
) -> Victim:
    """As the clean victim is trained."""
    return train_clean(poisoned(split, backdoors, np.random.default_rng(seed)), seed=seed, epochs=epochs, say=say)


def obeyed(model: nn.Module, split: Split, backdoor: Backdoor) -> Array:
    """(N,) of the images of other classes than the backdoor's own: whether they get its label once they are stamped."""
    others = split.images[split.labels != backdoor.label]
    return np.asarray(predict(model, backdoor.stamp(cifar10.unit(others))) == backdoor.label)


def _measured(model: Victim, split: Split, *, backdoors: Mapping[str, Backdoor]) -> float:
    for name, backdoor in backdoors.items():
        hits = obeyed(model, split, backdoor)
        making.say(f"{name}: label {backdoor.label} for {hits.mean():.4f} of {len(hits):,} stamped images")
    return accuracy(model, split)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    measured: Callable[[Victim, Split], float] = partial(_measured, backdoors=BACKDOORS)
    return making.Command("cifar10_poisoned", cifar10.load, train, measured, export, EPOCHS, SEED)(argv)


if __name__ == "__main__":
    raise SystemExit(main())
