import numpy as np
import pytest
import torch

from adversary import surrogate
from adversary.data import mnist
from adversary.gradients import predict


def test_it_learns_digits_and_repeats_itself(data):
    x, y = mnist.unit(data.clean.images[:5000]), data.clean.labels[:5000]
    state = torch.get_rng_state()
    net = surrogate.fit(x, y, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    test = mnist.unit(data.test.images[:500])
    assert (predict(net, test) == data.test.labels[:500]).mean() > 0.9
    assert np.array_equal(predict(surrogate.fit(x, y, seed=0), test), predict(net, test))


@pytest.mark.parametrize("shape", [(6,), (3, 8, 8), (8, 8, 3)])
def test_it_takes_what_comes(shape):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(200, *shape)).astype(np.float32), rng.integers(0, 4, 200)
    assert surrogate.fit(x, y, seed=0)(torch.from_numpy(x[:2])).shape == (2, 4)
