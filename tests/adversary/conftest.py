"""Real MNIST, real CIFAR-10 and the committed victims, once a session."""

import numpy as np
import pytest

from adversary.data import cifar10, mnist
from adversary.data.cache import DataUnavailable
from adversary.gradients import one_thread, predict
from adversary.victims import cifar10 as cifar_victims
from adversary.victims import mnist as victims


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="session")
def data() -> mnist.Mnist:
    try:
        return mnist.load()
    except DataUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def victim() -> victims.Victim:
    return victims.load()


@pytest.fixture(scope="session")
def prey(data, victim) -> tuple[np.ndarray, np.ndarray]:
    """64 test images that the victim labels right."""
    x, y = mnist.unit(data.test.images[:200]), data.test.labels[:200]
    right = predict(victim, x) == y
    return x[right][:64], y[right][:64]


@pytest.fixture(scope="session")
def cifar() -> cifar10.Cifar10:
    try:
        return cifar10.load()
    except DataUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def cifar_victim() -> cifar_victims.Victim:
    return cifar_victims.load()
