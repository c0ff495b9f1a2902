"""A model of two classes as a torch module and as an answer, and libraries that attack it."""

import numpy as np
import torch
from torch import nn

from adversary.attack import BudgetSpent
from bench.attacks.peers import Peer


class Brightness(nn.Module):
    """Class 1 where the image is brighter than the middle grey."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([1.0 - mean, mean], dim=1)


def load(_path):
    return Brightness().eval()


def answer(x):
    high = x.reshape(len(x), -1).mean(1)
    return np.stack([1.0 - high, high], axis=1)


def _sign(model, prey, options):
    x = torch.from_numpy(prey.x).requires_grad_()
    logits = model(x)
    gap = logits[torch.arange(len(x)), 1 - torch.from_numpy(prey.y)].sum()
    (gradient,) = torch.autograd.grad(gap, x)
    return prey.x + options["step"] * np.sign(gradient.numpy())


def _brighten(gauge, prey, options):
    """Asks for each image twice, and goes on until the budget is spent."""
    for step in range(1, 1000):
        for _ in range(2):
            gauge(prey.x + step * options["step"])
    raise BudgetSpent


FGSM = Peer("fgsm", "stub", "Sign", "model", lambda given: {"step": given.eps}, _sign, "nothing")
SQUARE = Peer(
    "square", "stub", "Brighten", "probabilities", lambda given: {"step": given.own["initial"] / 10}, _brighten,
    "it is no Square",
)  # fmt: skip
