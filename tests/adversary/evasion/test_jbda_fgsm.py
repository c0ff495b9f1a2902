"""FGSM on a substitute that learned from the victim's labels alone."""

import numpy as np

from adversary.data import mnist
from adversary.evasion import jbda_fgsm
from adversary.gradients import predict
from tests.adversary.evasion.oracles import launch, over


def run(oracle, prey, data, **options):
    own = mnist.unit(data.clean.images[:300])
    return launch(jbda_fgsm, oracle, *prey, eps=0.3, own_x=own, classes=10, **options)


def test_what_misleads_the_substitute_misleads_the_victim(victim, prey, data):
    """Papernot et al. 2017 have 84 % at eps 0.3 against a remote model; noise of that size alone has some 25 to 30."""
    oracle = over(victim)
    result = run(oracle, prey, data, budget=2000)
    assert (predict(victim, result.x_adv) != prey[1]).mean() > 0.45
    assert np.abs(result.x_adv - prey[0]).max() <= 0.3 + 1e-6
    assert oracle.sent == result.queries.sum() == 2000


def test_none_of_the_inputs_attacked_is_sent(victim, prey, data):
    sent = set()

    class Watching:
        def labels(self, x):
            sent.update(row.tobytes() for row in x)
            return over(victim).labels(x)

    run(Watching(), prey, data, budget=200)
    assert not sent & {row.tobytes() for row in prey[0]}


def test_an_endpoint_that_refuses_everything(victim, prey, data):
    result = run(over(victim, refuse=lambda *_: True), prey, data, budget=200)
    assert result.x_adv.shape == prey[0].shape


def test_rows_are_divided_as_whole_numbers_go():
    assert jbda_fgsm.shares(7, 3).tolist() == [2, 2, 3]
    assert jbda_fgsm.shares(5, 0).tolist() == []
