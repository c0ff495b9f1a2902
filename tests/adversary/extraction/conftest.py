"""The linear victim, and what copies are judged by."""

import pytest

from adversary.data import mnist
from adversary.victims import mnist_linear


@pytest.fixture(scope="session")
def linear() -> mnist_linear.Victim:
    return mnist_linear.load()


@pytest.fixture(scope="session")
def unseen(data):
    """2,000 test images."""
    return mnist.unit(data.test.images[:2000])


@pytest.fixture(scope="session")
def pool(data):
    """5,000 images that the victim did not learn from, and their labels."""
    return mnist.unit(data.clean.images[:5000]), data.clean.labels[:5000]
