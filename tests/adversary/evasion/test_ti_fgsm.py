"""TI-FGSM: the kernel by hand, and what a surrogate's images do to the victim."""

import numpy as np
import pytest

from adversary.evasion import mi_fgsm, ti_fgsm
from adversary.gradients import predict
from adversary.images import planes
from tests.adversary.evasion.models import run


def test_the_kernel_reaches_from_minus_three_to_three_sigma():
    weights = ti_fgsm.gaussian(3)
    edge = np.exp(-4.5)
    assert weights.tolist() == pytest.approx([edge / (1 + 2 * edge), 1 / (1 + 2 * edge), edge / (1 + 2 * edge)])
    assert ti_fgsm.gaussian(15).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("layout", ["first", "last", "none"])
def test_a_point_becomes_the_kernel_in_its_own_channel(layout):
    point = np.zeros((1, 3, 9, 9), np.float32)
    point[0, 1, 4, 5] = 1.0
    given = {"first": point, "last": np.moveaxis(point, 1, 3), "none": point[:, 1]}[layout]
    out = ti_fgsm.smooth(given, 5)
    assert out.shape == given.shape
    out = planes(out)
    weights = ti_fgsm.gaussian(5)
    assert out[0, -1 if layout == "none" else 1, 2:7, 3:8] == pytest.approx(np.outer(weights, weights))
    assert out.sum() == pytest.approx(1.0)
    assert layout == "none" or not out[0, [0, 2]].any()


def test_beyond_the_border_is_black():
    assert ti_fgsm.smooth(np.ones((1, 1, 5, 5), np.float32), 3)[0, 0, 0, 2] == pytest.approx(
        1.0 - ti_fgsm.gaussian(3)[0]
    )


def test_a_kernel_of_one_is_mi_fgsm(surrogate, prey):
    x, y = prey[0][:4], prey[1][:4]
    same = run(ti_fgsm, surrogate, x, y, eps=0.2, budget=4, width=1)
    assert np.array_equal(same.x_adv, run(mi_fgsm, surrogate, x, y, eps=0.2, budget=4).x_adv)
    with pytest.raises(ValueError, match="no middle"):
        run(ti_fgsm, surrogate, x, y, eps=0.2, budget=4, width=4)


def test_carries_over_with_a_smoother_perturbation(victim, surrogate, prey):
    x, y = prey
    smooth, rough = (run(ti_fgsm, surrogate, x, y, eps=0.3, budget=10, width=w) for w in (7, 1))
    assert (predict(victim, smooth.x_adv) != y).mean() > 0.5

    def roughness(x_adv):
        return np.abs(np.diff((x_adv - x), axis=3)).mean()

    assert roughness(smooth.x_adv) < roughness(rough.x_adv)
