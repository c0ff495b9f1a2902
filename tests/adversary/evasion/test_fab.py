"""FAB-T: the projection is exact, and the closest points on the bare victim are where Auto-PGD begins to win."""

import numpy as np
import pytest
import torch
from scipy import optimize

from adversary.attack import norms
from adversary.evasion import apgd, fab
from adversary.gradients import predict
from tests.adversary.evasion.models import planes, run


def by_linear_program(point, normal, offset):
    """min r over |move| <= r, point + move in [0, 1], normal . (point + move) = offset; None where out of reach."""
    n = len(point)
    bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
    both = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    known = optimize.linprog(
        np.eye(n + 1)[-1], A_ub=both, b_ub=np.zeros(2 * n), A_eq=[[*normal, 0.0]], b_eq=[offset - normal @ point],
        bounds=bounds,
    )  # fmt: skip
    return known.x[-1] if known.success else None


@pytest.mark.parametrize("seed", range(25))
def test_no_smaller_move_reaches_the_plane(seed):
    rng = np.random.default_rng(seed)
    point = rng.uniform(0, 1, 9)
    point[:3] = rng.integers(0, 2, 3)
    normal, offset = rng.normal(size=9), rng.normal() * 1.5
    normal[3] = 0.0
    move = fab.project(*(torch.from_numpy(np.asarray([value])) for value in (point, normal, offset)))[0].numpy()
    assert ((point + move >= -1e-9) & (point + move <= 1 + 1e-9)).all()
    known = by_linear_program(point, normal, offset)
    if known is None:  # then as near as the box allows
        best = np.where((normal > 0) == (normal @ point < offset), 1.0, 0.0)
        assert (point + move)[normal != 0] == pytest.approx(best[normal != 0])
    else:
        assert normal @ (point + move) == pytest.approx(offset, abs=1e-9)
        assert np.abs(move).max() == pytest.approx(known, abs=1e-6)


def test_the_distance_to_a_plane():
    model = planes([[0.0, 0.0], [3.0, 1.0]], [0.0, -2.0])
    x = np.array([[0.6, 0.8]], np.float32)  # 0.6 past it: 0.15 in both values
    result = run(fab, model, x, np.array([1]), eps=1.0, budget=30)
    assert predict(model, result.x_adv).tolist() == [0]
    assert norms(result.x_adv - x, "linf")[0] == pytest.approx(0.15, abs=0.01)


def test_as_close_on_the_bare_victim_as_auto_pgd_must_be_given(victim, prey):
    x, y = prey[0][:12], prey[1][:12]
    near = run(fab, victim, x, y, eps=0.3, budget=120, targets=3)
    assert (predict(victim, near.x_adv) != y).all()
    sizes = norms(near.x_adv - x, "linf")
    assert np.median(sizes) < 0.13
    below = [run(apgd, victim, x[i : i + 1], y[i : i + 1], eps=0.8 * sizes[i], budget=60).x_adv for i in range(12)]
    assert (predict(victim, np.concatenate(below)) == y).mean() > 0.8


def test_no_more_targets_once_one_is_near_enough(victim, prey):
    x, y = prey[0][:6], prey[1][:6]
    assert run(fab, victim, x, y, eps=0.3, budget=180).queries.tolist() == [20] * 6
    far = run(fab, victim, x, y, eps=0.001, budget=180)
    assert far.queries.tolist() == [180] * 6
    assert np.array_equal(far.x_adv, x)
