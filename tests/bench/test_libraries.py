"""The libraries themselves, where the extra `peers` is installed: each is driven, counted and ended as told."""

import numpy as np
import pytest

from adversary import campaign
from adversary.attack import norms
from adversary.data import mnist
from adversary.data.cache import DataUnavailable
from adversary.gradients import predict
from adversary.runner import NEVER
from adversary.victims import mnist as victims
from bench.attacks import measure
from bench.attacks.libraries import PEERS
from bench.attacks.peers import Prey

MODULES = {"adversarial-robustness-toolbox": "art", "foolbox": "foolbox", "pyautoattack": "pyautoattack"}
LESS = {"boundary": 300, "carlini-wagner": 200, "hop-skip-jump": 500}
ATTACKS = {attack.attack: attack for attack in campaign.load("standard").campaign.attacks}


@pytest.fixture(scope="module")
def data():
    try:
        return mnist.load()
    except DataUnavailable as error:
        pytest.skip(str(error))


def prey(data, model, attack, n):
    x, y = mnist.unit(data.test.images[:40]), data.test.labels[:40]
    right = predict(model, x) == y
    x, y = x[right][:n], y[right][:n]
    starts = np.stack([x[y != label][0] for label in y]) if attack.per_victim else None
    return Prey(x, y, measure.eps_of(attack), 0, 10, starts)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.attack)
def test_a_library(data, peer):
    pytest.importorskip(MODULES[peer.library], reason="the extra `peers` is not installed")
    attack, model = ATTACKS[peer.attack], victims.load()
    attack = attack.model_copy(update={"budget": LESS.get(attack.attack)})
    those = prey(data, model, attack, 4)
    options = peer.options(measure.given(attack))
    found = measure.found(peer, model, attack, those, options)
    again = measure.found(peer, model, attack, those, options)
    assert np.array_equal(found.x_adv, again.x_adv)
    size = norms(found.x_adv - those.x, attack.entry.norm)
    wrong = (predict(model, found.x_adv) != those.y) & (size <= those.eps * 1.0001)
    most = measure.budget_of(attack) * (2 if attack.attack == "carlini-wagner" else 1)  # two step sizes
    assert found.queries.max() <= most
    if peer.sees == "model":
        assert found.queries.min() >= 1
        assert wrong.sum() >= 3
    else:
        assert np.array_equal(wrong, found.reached_at != NEVER)
        assert (found.reached_at[wrong] == found.queries[wrong]).all()
        assert wrong.any() or attack.attack == "boundary"
