"""A surrogate: the attacker's own network, fitted on labelled inputs of his own, to craft on and send to the victim.

Source: Papernot, McDaniel, Goodfellow 2016, arXiv:1605.07277 (transfer between networks fitted on the same task).
Knows:  the task and some data, nothing of the victim.
Cost:   about a second for 5,000 small grey images, a minute and a half of a residual network for as many colour ones,
        from which less would not transfer; seeded, on one thread, the same network every time.
"""

import numpy as np
import torch
from torch import nn

from adversary.attack import Array
from adversary.extraction import networks
from adversary.extraction.answers import Loot
from adversary.gradients import one_thread
from adversary.images import channel_axis

_BATCH = 50
_EPOCHS = 3
_RATE = 3e-3
_COLOUR = 3
_COLOUR_EPOCHS = 12


def fit(x: Array, y: Array, seed: int) -> nn.Module:
    """(N, C, H, W) or (N, ...) float32 in [0, 1], (N,) labels -> a module that answers with logits."""
    shape, classes = x.shape[1:], int(y.max()) + 1
    if len(shape) == _COLOUR and shape[channel_axis(shape)] == _COLOUR:
        rng = np.random.default_rng(seed)
        told = Loot(np.asarray(x, np.float32), np.eye(classes)[y])
        return networks.learn(networks.network(shape, classes, rng), told, rng, epochs=_COLOUR_EPOCHS, augment=True)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _network(shape, classes)
        optimizer, order = torch.optim.Adam(net.parameters(), lr=_RATE), np.random.default_rng(seed)
        inputs, labels = torch.from_numpy(np.array(x, np.float32)), torch.from_numpy(np.array(y, np.int64))
        for _ in range(_EPOCHS):
            for rows in np.array_split(order.permutation(len(x)), max(1, len(x) // _BATCH)):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(inputs[rows]), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return net.eval()


def _network(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two strided convolutions where the one channel comes first, else a perceptron."""
    if len(shape) == _COLOUR and shape[0] == 1:
        layers = [nn.Conv2d(shape[0], 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2, 2), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*layers, nn.LazyLinear(classes))
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(128), nn.ReLU(), nn.Linear(128, classes))
