"""Inversion by score queries: a linear model gives its classes away."""

import inspect

import numpy as np
import pytest

from adversary import surrogate
from adversary.catalogue import CATALOGUE
from adversary.data import mnist
from adversary.gradients import predict
from adversary.privacy import inversion
from adversary.runner_inversion import likeness
from adversary.victims import mnist_linear
from tests.adversary.evasion.oracles import linear, over

WANTED = np.arange(10)
BLANK = np.full((10, 1, 28, 28), 0.5, np.float32)


def run(oracle, x=BLANK, y=WANTED, *, seed=0, **options):
    return inversion.attack(oracle, x, y, rng=np.random.default_rng(seed), **{"budget": 3000, **options})


@pytest.fixture(scope="module")
def softmax():
    return mnist_linear.load()


@pytest.fixture(scope="module")
def real(data):
    return mnist.unit(data.clean.images[:5000]), data.clean.labels[:5000]


@pytest.fixture(scope="module")
def rebuilt(softmax):
    return run(over(softmax)).x_adv


def test_the_classes_of_a_linear_model_are_rebuilt(softmax, rebuilt, real):
    """The endpoint, a network that the attack never saw, and the mean of each class: all say which digit it is."""
    assert (predict(softmax, rebuilt) == WANTED).all()
    assert (predict(surrogate.fit(*real, seed=1), rebuilt) == WANTED).sum() >= 8
    alike = likeness(rebuilt, *real, 10)
    assert (alike.argmax(axis=1) == WANTED).sum() >= 8
    own, others = alike.diagonal(), alike[~np.eye(10, dtype=bool)]
    assert np.median(own) > np.median(others) + 0.15
    nothing = likeness(BLANK, *real, 10)
    assert np.abs(nothing).max() == 0.0


def test_smoothing_brings_it_nearer_to_real_digits(softmax, rebuilt, real):
    rough = run(over(softmax), smoothing=0.0).x_adv
    assert np.median(likeness(rebuilt, *real, 10).diagonal()) > np.median(likeness(rough, *real, 10).diagonal()) + 0.02


def test_a_convolutional_network_is_sure_of_what_is_no_digit(victim, real):
    made = run(over(victim), BLANK[:3], WANTED[:3]).x_adv
    assert (predict(victim, made) == WANTED[:3]).all()
    assert likeness(made, *real, 10).diagonal().max() < 0.6


def test_it_climbs_where_a_linear_score_rises():
    """Two classes, class 1 brighter on the left: rebuilt, the left is white and the right black."""
    w = np.ones((8, 8)) * [1, 1, 1, 1, -1, -1, -1, -1]
    x = np.full((1, 8, 8), 0.5, np.float32)
    made = run(linear(w, 0.0), x, np.array([1]), smoothing=0.0, share=1.0).x_adv[0]
    assert made[:, :4].mean() > 0.9
    assert made[:, 4:].mean() < 0.1
    other = run(linear(w, 0.0), x, np.array([0]), smoothing=0.0, share=1.0).x_adv[0]
    assert other[:, :4].mean() < 0.1


@pytest.mark.parametrize("budget", [1, 2, 49, 50, 173])
def test_nothing_is_sent_past_the_budget_and_all_that_is_sent_is_told(budget, softmax):
    oracle = over(softmax)
    result = run(oracle, BLANK[:1], WANTED[:1], budget=budget)
    assert result.queries.tolist() == [oracle.sent]
    assert budget - 1 <= oracle.sent <= budget
    assert max(oracle.calls, default=0) <= 64
    assert result.aim.tolist() == [0]


def test_what_comes_back_has_the_shape_type_and_bounds_of_x_which_is_left_alone(softmax):
    before = BLANK.copy()
    result = run(over(softmax), budget=200)
    assert result.x_adv.shape == BLANK.shape
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.min() >= 0.0
    assert result.x_adv.max() <= 1.0
    assert result.aim.tolist() == WANTED.tolist()
    assert np.array_equal(BLANK, before)


def test_the_seed_decides_everything(softmax):
    first, again, other = (run(over(softmax), BLANK[:1], WANTED[:1], budget=300, seed=s).x_adv for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_layout_does_not_matter():
    w = np.random.default_rng(0).normal(size=(3, 8, 8))
    first = run(linear(w, 0.0), np.full((1, 3, 8, 8), 0.5, np.float32), np.array([1]), budget=500).x_adv
    last_w = np.moveaxis(w, 0, 2)
    last = run(linear(last_w, 0.0), np.full((1, 8, 8, 3), 0.5, np.float32), np.array([1]), budget=500).x_adv
    assert np.allclose(np.moveaxis(last, 3, 1), first, atol=1e-5)


def test_an_endpoint_that_never_answers_leaves_the_start_as_it_is(softmax):
    oracle = over(softmax, refuse=lambda sent, x: True)
    result = run(oracle, BLANK[:1], WANTED[:1], budget=200)
    assert np.array_equal(result.x_adv, BLANK[:1])
    assert result.queries.tolist() == [oracle.sent]


def test_refusals_on_the_way_are_survived(softmax):
    """A call is a row; every fifth is refused, and its pair with it."""
    oracle = over(softmax, refuse=lambda sent, _: sent % 5 == 0)
    result = run(oracle, BLANK[:1], WANTED[:1], budget=1500, batch=1)
    assert predict(softmax, result.x_adv).tolist() == [0]


def test_the_catalogue_knows_what_it_sees():
    entry = CATALOGUE["inversion"]
    assert (entry.goal, entry.access, entry.budget) == ("inversion", "scores", 5000)
    assert entry.function is inversion.attack
    assert "eps" not in inspect.signature(entry.function).parameters
