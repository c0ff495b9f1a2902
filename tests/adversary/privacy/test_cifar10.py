"""Membership in the committed CIFAR-10 victim, which knows 2,500 images by heart: the order of the published figures.

Shokri et al. 2017 find members of CIFAR-10 models trained on 2,500 images with an accuracy above 0.7. The control are
images that the victim has not seen, passed off as members.
"""

import numpy as np
import pytest

from adversary.catalogue import CATALOGUE
from adversary.data import cifar10
from adversary.data.cache import DataUnavailable
from adversary.gradients import one_thread
from adversary.judge_leaks import advantage, auroc
from adversary.privacy import shadows
from adversary.tensors import LocalOracle
from adversary.victims import cifar10_overfit

OWN = 1500
N = 150  # each of members, outsiders, and outsiders passed off as members


@pytest.fixture(scope="module")
def cifar():
    try:
        return cifar10.load()
    except DataUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shadow(cifar) -> shadows.Shadow:
    """One for all three attacks: its training takes the time."""
    own = cifar.clean.part(slice(OWN))
    (made,) = shadows.train(cifar10.unit(own.images), own.labels, count=1, epochs=30, rng=np.random.default_rng(0))
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("membership-confidence", {}, 0.83),
        ("membership-shadow", {"count": 1}, 0.8),
        ("membership-label-only", {"known": 300}, 0.75),
    ],
)
def test_members_of_the_victim_are_found(cifar, shadow, monkeypatch, name, options, least):
    seen, unseen = cifar.learn.part(slice(N)), cifar.learn.part(slice(cifar10_overfit.MEMBERS, None)).part(slice(N))
    parts = (seen, cifar.test.part(slice(N)), unseen)
    x, y = cifar10.unit(np.concatenate([p.images for p in parts])), np.concatenate([p.labels for p in parts])
    own = cifar.clean.part(slice(OWN))
    monkeypatch.setattr(shadows, "train", lambda *_, **__: [shadow])
    with one_thread():
        scores = CATALOGUE[name].function(
            LocalOracle(cifar10_overfit.load()), x, y, budget=CATALOGUE[name].budget, rng=np.random.default_rng(1),
            own_x=cifar10.unit(own.images), own_y=own.labels, **options,
        ).scores  # fmt: skip
    members, outsiders, passed_off = np.split(scores, 3)
    assert auroc(members, outsiders) > least
    assert advantage(members, outsiders) > 0.4  # an accuracy of 0.7 and more
    assert abs(auroc(passed_off, outsiders) - 0.5) < 0.1
    assert abs(advantage(passed_off, outsiders)) < 0.17
