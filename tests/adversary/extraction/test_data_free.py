"""A copy made without any data: better than chance on the bare victim, in any layout; vectors are refused."""

import numpy as np
import pytest

from adversary.extraction import data_free
from tests.adversary.evasion.oracles import linear as two_classes
from tests.adversary.evasion.oracles import over
from tests.adversary.extraction.copies import agreement, made


@pytest.mark.long
def test_it_copies_the_victim_from_noise(victim, unseen):
    oracle = over(victim)
    sent, copies = made(data_free, oracle, unseen[:1], budget=12_000)
    assert oracle.sent == 12_000
    assert len(sent) == 4
    assert agreement(copies[-1], victim, unseen) > 0.35  # chance is 0.1


def test_what_it_sends_are_images_of_all_shades(victim, unseen):
    shades = []

    class Watching:
        sent = 0  # nobody asks

        def probabilities(self, x):
            assert x.min() >= 0.0
            assert x.max() <= 1.0
            shades.extend(x.mean(axis=(1, 2, 3)))
            return over(victim).probabilities(x)

    made(data_free, Watching(), unseen[:1], budget=700, replays=1, epochs=1)
    assert min(shades) < 0.25
    assert max(shades) > 0.75


@pytest.mark.parametrize("shape", [(3, 12, 12), (12, 12, 3), (12, 12)])
def test_any_layout_will_do(shape):
    oracle = two_classes(np.ones(shape), 0.5 * np.prod(shape))
    x = np.zeros((1, *shape), np.float32)
    _, copies = made(data_free, oracle, x, budget=150, classes=2, batch=20, epochs=1)
    assert copies[-1](np.zeros((3, *shape), np.float32)).shape == (3,)


def test_vectors_are_no_images():
    with pytest.raises(ValueError, match="not images"):
        made(data_free, two_classes([1.0, 1.0], 1.0), np.zeros((1, 2), np.float32), budget=10, classes=2)
