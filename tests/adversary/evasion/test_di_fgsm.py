"""DI-FGSM: shrinking and its gradient by hand, and what a surrogate's images do to the victim."""

import numpy as np
import pytest

from adversary.evasion import di_fgsm, mi_fgsm
from adversary.gradients import predict
from tests.adversary.evasion.models import run


def test_an_image_shrinks_by_nearest_neighbours_onto_black():
    image = np.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    kept = di_fgsm.Shrinking(np.array([0, 1, 2]), np.array([0, 2]), top=1, left=1)
    assert kept.forth(image)[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 3, 0], [0, 5, 7, 0], [0, 9, 11, 0]]


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), (2, 9, 7, 3), (2, 9, 7)])
def test_the_gradient_comes_back_to_the_pixels_it_belongs_to(shape):
    """<forth(x), g> = <x, back(g)> for all x and g: `back` is the adjoint."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        kept = di_fgsm.shrinking(9, 7, 0.5, rng)
        x, g = rng.normal(size=(2, *shape))
        assert (kept.forth(x) * g).sum() == pytest.approx((x * kept.back(g)).sum(), rel=1e-4, abs=1e-4)


def test_sizes_and_places_are_drawn_from_all_that_fit():
    rng = np.random.default_rng(0)
    drawn = [di_fgsm.shrinking(28, 28, 0.8, rng) for _ in range(300)]
    assert {len(k.rows) for k in drawn} == {22, 23, 24, 25, 26, 27}
    assert all(k.top + len(k.rows) <= 28 and k.left + len(k.columns) <= 28 for k in drawn)
    assert max(k.top for k in drawn) >= 5


def test_a_share_of_the_steps_sees_the_image_itself():
    seen = []

    def gradient(x):
        seen.append(x.min())
        return x

    image = np.ones((1, 1, 20, 20))
    behind = di_fgsm.diverse(gradient, rng=np.random.default_rng(0), least=0.5, share=0.25)
    for _ in range(400):
        behind(image)
    assert 0.18 < np.mean(np.array(seen) == 0.0) < 0.32


def test_without_diversity_it_is_mi_fgsm(surrogate, prey):
    x, y = prey[0][:4], prey[1][:4]
    same = run(di_fgsm, surrogate, x, y, eps=0.2, budget=4, share=0.0)
    assert np.array_equal(same.x_adv, run(mi_fgsm, surrogate, x, y, eps=0.2, budget=4).x_adv)
    assert not np.array_equal(run(di_fgsm, surrogate, x, y, eps=0.2, budget=4).x_adv, same.x_adv)


def test_carries_over_and_momentum_helps_it_as_published(victim, surrogate, prey):
    x, y = prey
    with_, without = (
        (predict(victim, run(di_fgsm, surrogate, x, y, eps=0.3, budget=10, decay=d).x_adv) != y).mean() for d in (1, 0)
    )
    assert with_ > 0.5
    assert with_ >= without
