"""A second network, for attacks that are crafted on one and sent to another."""

import numpy as np
import pytest
import torch
from torch import nn

from adversary.data import mnist


@pytest.fixture(scope="session")
def surrogate(data) -> nn.Module:
    """A small network of another shape than the victim's, about 97 % right, fitted in half a second."""
    x, y = torch.from_numpy(mnist.unit(data.train.images[:5000])), torch.from_numpy(data.train.labels[:5000])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2, padding=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(784, 10),
        )  # fmt: skip
    optimizer, order = torch.optim.Adam(net.parameters(), lr=3e-3), np.random.default_rng(3)
    for _ in range(3):
        for rows in order.permutation(len(x)).reshape(-1, 50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()
