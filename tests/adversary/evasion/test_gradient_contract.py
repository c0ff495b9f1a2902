"""What every attack by gradients must keep, whatever it finds: budget, bounds, seed, eps, and an honest count."""

import numpy as np
import pytest

from adversary.catalogue import CATALOGUE
from adversary.gradients import predict
from adversary.sizes import sizes
from tests.adversary.evasion.models import Counting, colour

NAMES = sorted(
    n for n, e in CATALOGUE.items()
    if e.access == "gradients" and e.family in {"white-box", "transfer", "patch", "generative"}
)  # fmt: skip
BUDGETS = {
    "fgsm": 1,
    "autoattack": 300,
    "jsma": 20,
    "universal": 100,
    "apgd-t": 27,
    "fab": 27,
    "lbfgs": 40,
    "carlini-wagner": 100,
}


def run(name, model, x, y, *, seed=0, budget=None):
    entry = CATALOGUE[name]
    budget = BUDGETS.get(name, 20) if budget is None else budget
    return entry.load()(model, x, y, eps=entry.eps, budget=budget, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_back_has_the_shape_type_bounds_and_size(name, victim, prey):
    x, y = prey[0][:3], prey[1][:3]
    before = x.copy()
    result = run(name, victim, x, y)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.min() >= 0.0
    assert result.x_adv.max() <= 1.0
    assert (sizes(x, result.x_adv, CATALOGUE[name].norm) <= CATALOGUE[name].eps + 1e-5).all()
    assert result.queries.shape == (3,)
    assert result.queries.max() <= BUDGETS.get(name, 20)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "autoattack"])  # which asks without gradients too
def test_every_gradient_is_told(name, victim, prey):
    model = Counting(victim)
    result = run(name, model, prey[0][:1], prey[1][:1])
    assert 0 < model.gradients <= result.queries[0]
    if name != "carlini-wagner":  # which may stop early and tells of all it was given
        assert model.gradients == result.queries[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything(name, victim, prey):
    first, again = (run(name, victim, prey[0][:2], prey[1][:2]) for _ in range(2))
    assert np.array_equal(first.x_adv, again.x_adv)
    assert first.queries.tolist() == again.queries.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_no_work(name, victim, prey):
    result = run(name, victim, prey[0][:0], prey[1][:0])
    assert result.x_adv.shape == (0, 1, 28, 28)
    assert result.queries.shape == (0,)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"fgsm"}))
def test_no_budget_no_attack(name, victim, prey):
    with pytest.raises(ValueError, match=r"budget|needs"):
        run(name, victim, prey[0][:1], prey[1][:1], budget=0)


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("name", NAMES)
def test_colour_images_of_either_layout(name, layout):
    model = colour(layout)
    shape = (2, 3, 12, 12) if layout == "first" else (2, 12, 12, 3)
    x = np.random.default_rng(1).uniform(size=shape).astype(np.float32)
    result = run(name, model, x, predict(model, x))
    assert result.x_adv.shape == shape
    assert (sizes(x, result.x_adv, CATALOGUE[name].norm) <= CATALOGUE[name].eps + 1e-5).all()
    assert not np.array_equal(result.x_adv, x)
