import numpy as np
import pytest

from guard import learning, networks
from guard.learning import auxiliary, denoiser
from guard.types import Material
from tests.learning import toy
from tests.learning.test_auxiliary import accuracy, hostile

PACE = toy.Pace(1, least=120, most=120, batch=64, rate=0.005, average=0.9, adam=True)
OPTIONS = denoiser.Options(0.1, PACE, guide=toy.SHORT)


@pytest.fixture(scope="module")
def made():
    return learning.train("denoiser", toy.material(), {}, options=OPTIONS)


@pytest.fixture(scope="module")
def served():
    """Another network that is easily swayed: not the denoiser's guide."""
    other = toy.material(seed=5)
    return learning.train("auxiliary", other, {}, options=auxiliary.Options(0.0, toy.SHORT))


def test_gives_a_network_its_answers_back_and_keeps_clean_ones(made, served):
    x, labels = toy.images(300, seed=1)
    x_adv = hostile(served, x, labels, 0.1)
    restored, clean = (networks.load(made)(some)["x"] for some in (x_adv, x))
    bare = accuracy(served, x_adv, labels)
    assert bare < 0.85
    assert 1 - accuracy(served, restored, labels) < 0.6 * (1 - bare)
    assert accuracy(served, clean, labels) > accuracy(served, x, labels) - 0.1


def test_output(made):
    x = toy.images(4)[0]
    network = networks.load(made)
    out = network(x)["x"]
    assert out.shape == x.shape
    assert out.min() >= 0
    assert out.max() <= 1
    np.testing.assert_allclose(network(x[:1])["x"], out[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [toy.vectors(), toy.material(channels=3)], ids=["vectors", "colour"])
def test_other_forms_and_the_same_each_time(given):
    brief = toy.Pace(1, least=3, most=3, batch=64, rate=0.002, adam=True)
    options = denoiser.Options(0.1, brief, guide=brief)
    first, again = (learning.train("denoiser", given, {}, options=options) for _ in range(2))
    assert first == again
    assert networks.load(first)(given.x[:3])["x"].shape == (3, *given.x.shape[1:])


@pytest.mark.parametrize(
    ("shape", "widths", "squares"),
    [
        ((28, 28, 1), [24, 48, 96], 1),
        ((32, 32, 3), [24, 48, 96], 1),
        ((224, 224, 3), [24, 48, 96], 4),
        ((225, 225, 3), [24, 48, 96], 1),
        ((9, 9, 1), [24, 48], 1),
    ],
)
def test_the_architecture_follows_the_shape(shape, widths, squares):
    plan = denoiser.plan_for(shape)
    assert (plan["widths"], plan["squares"]) == (widths, squares)


def test_starts_as_the_identity():
    import torch

    x = torch.rand(2, 16, 16, 3)
    for plan in (denoiser.plan_for((16, 16, 3)), denoiser.plan_for((16,))):
        given = x if plan["kind"] == "images" else x[:, :, 0, 0]
        assert torch.equal(denoiser.Denoiser(plan).eval()(given), given)


def test_refusals():
    with pytest.raises(ValueError, match="a denoiser needs 200 clean inputs"):
        learning.train("denoiser", toy.material(50), {})
    with pytest.raises(ValueError, match="labels only"):
        learning.train("denoiser", Material(toy.images(300)[0], None, toy.CLASSES, {}, seed=0), {})
