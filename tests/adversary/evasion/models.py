"""Small models with known answers for white-box attacks, and one that counts the gradients taken of it."""

import numpy as np
import torch
from torch import nn


class Counting:
    """The model behind a count of the gradients that reach its input, a row and backward pass each."""

    def __init__(self, model):
        self.model, self.gradients = model, 0

    def __call__(self, x):
        if x.requires_grad:
            x.register_hook(self._one)
        return self.model(x)

    def _one(self, gradient):
        self.gradients += len(gradient)


def planes(weights, offsets=None):
    """Logits W x + b of flat inputs."""
    w = torch.tensor(np.asarray(weights), dtype=torch.float32)
    b = torch.zeros(len(w)) if offsets is None else torch.tensor(np.asarray(offsets), dtype=torch.float32)
    return lambda x: x.flatten(1) @ w.T + b


def colour(layout="first", classes=5):
    """A random network of images 12x12x3, its channels first or last."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(864, classes)).eval()
    return net if layout == "first" else lambda x: net(x.movedim(3, 1))


def run(module, model, x, y, *, seed=0, **options):
    return module.attack(model, x, y, rng=np.random.default_rng(seed), **options)
