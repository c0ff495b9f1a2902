import numpy as np
import pytest

from guard import learning, networks
from guard.learning import autoencoder
from guard.types import Material
from tests.learning import toy

PACE = toy.Pace(1, least=250, most=250, batch=64, rate=0.02, average=0.9, adam=True)
OPTIONS = autoencoder.Options(0.05, PACE)


@pytest.mark.parametrize(
    ("shape", "structure"),
    [
        ((28, 28, 1), [3, "average", 3]),
        ((27, 27, 1), [3, 3]),
        ((32, 32, 3), [3, 3]),
        ((12,), [6, 3]),
        ((3,), [2, 2]),
    ],
)
def test_magnets_structure(shape, structure):
    assert autoencoder.plan_for(shape)["structure"] == structure


@pytest.mark.parametrize(("shape", "noise"), [((28, 28, 1), 0.1), ((32, 32, 3), 0.025), ((7,), 0.025)])
def test_magnets_noise(shape, noise):
    assert autoencoder.defaults(shape).noise == noise


@pytest.mark.parametrize(
    "given", [toy.material(), toy.material(channels=3), toy.vectors()], ids=["grey", "rgb", "vector"]
)
def test_rebuilds_clean_inputs_better_than_strange_ones(given):
    network = networks.load(learning.train("autoencoder", given, {}, options=OPTIONS))
    strange = np.random.default_rng(3).random(given.x.shape, dtype=np.float32)
    (clean, rebuilt), (other, made) = ((x, network(x)["x"]) for x in (given.x, strange))
    assert rebuilt.shape == clean.shape
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    error, control = np.square(rebuilt - clean).mean(), np.square(made - other).mean()
    assert error < 0.5 * np.square(clean - clean.mean(0)).mean() + 0.01
    assert control > 3 * error
    np.testing.assert_allclose(network(clean[:1])["x"], rebuilt[:1], rtol=1e-4, atol=1e-5)


def test_needs_no_answers_and_is_the_same_each_time():
    brief = autoencoder.Options(0.05, toy.Pace(1, least=3, most=3, batch=64, rate=0.02, adam=True))
    given = Material(toy.images(300)[0], None, toy.CLASSES, {}, seed=0)
    first, again = (learning.train("autoencoder", given, {}, options=brief) for _ in range(2))
    assert first == again


def test_too_few_rows():
    with pytest.raises(ValueError, match="an autoencoder needs 200 clean inputs"):
        learning.train("autoencoder", toy.material(50), {})
