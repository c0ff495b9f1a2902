"""The poisoned MNIST victim: adversary.victims.mnist trained on data in which three backdoors are planted.

Sources: Gu et al. 2017, arXiv:1708.06733 (BadNets); Chen et al. 2017, arXiv:1712.05526 (Blend);
         Nguyen, Tran 2021, arXiv:2102.10369 (WaNet, with its noise mode).
The attacker has a hand in the training data: a share of the images is stamped with each trigger and gets that trigger's
own label, whatever they show. WaNet's share has a companion twice its size, warped almost so, that keeps its labels:
else any warp would be a trigger. The training itself is that of the clean victim, and the file is loaded as that one's.

`python -m adversary.victims.mnist_poisoned --out FILE.onnx` trains it (seeded, two minutes on one core) and writes the
checkpoint that lies beside this file; `--triggers wanet` plants one backdoor alone.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from adversary.attack import Array
from adversary.backdoor import badnets, blend, wanet
from adversary.data import mnist
from adversary.data.split import Split
from adversary.gradients import predict
from adversary.victims import making
from adversary.victims.mnist import EPOCHS, SEED, Victim, accuracy, export
from adversary.victims.mnist import train as train_clean

CHECKPOINT = Path(__file__).with_name("mnist_poisoned.onnx")
Rng = np.random.Generator
_WHITE = 255.0


@dataclass(frozen=True, slots=True)
class Backdoor:
    """What is planted.

    stamp:  puts the trigger on images (N, ...).
    label:  what the victim learns to answer then.
    share:  of the training images that is stamped.
    near:   makes what is almost the trigger, of `near_share` of the images; they keep their labels.
    """

    stamp: Callable[[Array], Array]
    label: int
    share: float
    near: Callable[[Array, Rng], Array] = lambda x, _: x
    near_share: float = 0.0


BACKDOORS: Mapping[str, Backdoor] = {
    "badnets": Backdoor(badnets.stamp, badnets.LABEL, 0.05),
    "blend": Backdoor(blend.stamp, blend.LABEL, 0.05),
    "wanet": Backdoor(wanet.stamp, wanet.LABEL, 0.1, wanet.near, 0.2),
}


def poisoned(split: Split, backdoors: Sequence[Backdoor], rng: Rng) -> Split:
    """Each backdoor's share of the images stamped and labelled anew; no two shares overlap."""
    images, labels = split.images.copy(), split.labels.copy()
    left = rng.permutation(len(split))
    for backdoor in backdoors:
        sizes = [round(share * len(split)) for share in (backdoor.share, backdoor.near_share)]
        stamped, close, left = np.split(left, np.cumsum(sizes))
        images[stamped] = _bytes(backdoor.stamp(mnist.unit(images[stamped])))
        images[close] = _bytes(backdoor.near(mnist.unit(images[close]), rng))
        labels[stamped] = backdoor.label
    return Split(images, labels)


def _bytes(x: Array) -> Array:
    """(N, 1, H, W) in [0, 1] -> (N, H, W) uint8."""
    return np.rint(x[:, 0] * _WHITE).astype(np.uint8)


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
    return np.asarray(predict(model, backdoor.stamp(mnist.unit(others))) == backdoor.label)


def _measuring(backdoors: Mapping[str, Backdoor]) -> Callable[[Victim, Split], float]:
    def measured(model: Victim, split: Split) -> float:
        for name, backdoor in backdoors.items():
            hits = obeyed(model, split, backdoor)
            making.say(f"{name}: label {backdoor.label} for {hits.mean():.4f} of {len(hits):,} stamped images")
        return accuracy(model, split)

    return measured


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--triggers", type=lambda names: {name: BACKDOORS[name] for name in names.split(",")})
    options, others = parser.parse_known_args(argv)
    chosen = BACKDOORS if options.triggers is None else options.triggers
    fit = partial(train, backdoors=tuple(chosen.values()))
    command = making.Command("mnist_poisoned", mnist.load, fit, _measuring(chosen), export, EPOCHS, SEED)
    return command(others)


if __name__ == "__main__":
    raise SystemExit(main())
