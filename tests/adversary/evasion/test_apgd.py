"""Auto-PGD and APGD-T: the published schedule and losses by hand, and more success than PGD on the bare victim."""

import numpy as np
import pytest
import torch

from adversary.evasion import apgd, apgd_t, pgd
from adversary.gradients import predict
from adversary.tensors import rows
from tests.adversary.evasion.models import planes, run


def success(module, victim, prey, **options):
    x, y = prey[0][:40], prey[1][:40]
    return float((predict(victim, run(module, victim, x, y, **options).x_adv) != y).mean())


def test_checkpoints_are_the_published_ones():
    assert apgd.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99, 105]


def test_losses_by_hand():
    logits = torch.tensor([[1.0, 5.0, 2.0, -1.0, 0.0]])
    y = torch.tensor([1])
    assert apgd.dlr(logits, y, y).item() == pytest.approx(-3.0 / 4.0)
    wrong = torch.tensor([2])
    assert apgd.dlr(logits, wrong, y).item() == pytest.approx(3.0 / 4.0)
    assert apgd_t.dlr(logits, y, torch.tensor([0])).item() == pytest.approx(-4.0 / 4.5)
    with pytest.raises(ValueError, match="three classes"):
        apgd.dlr(logits[:, :2], torch.tensor([0]), y)


def test_the_start_touches_the_ball(prey):
    x = prey[0][:3]
    middle = np.full_like(x, 0.5)
    start = apgd.random_start(middle, 0.1, np.random.default_rng(0)).numpy()
    assert np.abs(start - middle).reshape(3, -1).max(1) == pytest.approx([0.1] * 3)


def climber(**changed):
    """One row in one dimension at 0.5, half way up."""
    one, yes = torch.ones(1), torch.tensor([True])
    place = torch.full((1, 1), 0.5)
    values = {
        "row": torch.zeros(1, dtype=torch.int64), "x": place, "y": yes, "goal": yes, "now": place.clone(),
        "before": place, "gradient": torch.ones(1, 1), "loss": one, "step": 0.2 * one, "rises": 0 * one,
        "best": 0.8 * torch.ones(1, 1), "best_gradient": -torch.ones(1, 1), "best_loss": 2 * one, "loss_at_check": one,
        "halved_at_check": ~yes,
    }  # fmt: skip
    return apgd._Climbers(**{**values, **changed})


@pytest.mark.parametrize(
    ("rises", "loss_at_check", "halved_at_check", "halves"),
    [(15, 1.0, False, True), (16, 1.0, False, False), (16, 2.0, False, True), (16, 2.0, True, False)],
)
def test_the_step_is_halved_as_published(rises, loss_at_check, halved_at_check, halves):
    """At most 75 % of 20 steps rose; or the best did not improve since the last check, which did not halve."""
    c = climber(
        rises=torch.tensor([float(rises)]), loss_at_check=torch.tensor([loss_at_check]),
        halved_at_check=torch.tensor([halved_at_check]),
    )  # fmt: skip
    c.check(20)
    assert c.step.item() == pytest.approx(0.1 if halves else 0.2)
    assert c.now.item() == pytest.approx(0.8 if halves else 0.5)
    assert c.gradient.item() == (-1.0 if halves else 1.0)
    assert (c.rises.item(), c.loss_at_check.item(), c.halved_at_check.item()) == (0.0, 2.0, halves)


def test_a_move_mixes_in_the_last_one():
    c = climber(before=torch.full((1, 1), 0.46))
    c.move(eps=0.3, momentum=0.75)
    assert c.now.item() == pytest.approx(0.5 + 0.75 * 0.2 + 0.25 * 0.04)
    c.move(eps=0.3, momentum=0.75)
    assert c.now.item() == pytest.approx(0.8)  # the edge of the ball


def test_on_a_linear_model_it_ends_in_the_corner_where_the_loss_is_highest():
    model = planes([[0.0, 0.0, 0.0], [2.0, -1.0, 3.0]], [-9.0, 0.0])  # never wrong
    x = np.full((1, 3), 0.5, np.float32)
    result = run(apgd, model, x, np.array([1]), eps=0.1, budget=30)
    assert result.x_adv[0].tolist() == pytest.approx([0.4, 0.6, 0.4])
    assert result.queries.tolist() == [30]


def test_beats_pgd_on_the_bare_victim_and_wins_always_at_the_usual_eps(victim, prey):
    plain = success(pgd, victim, prey, eps=0.1, budget=40)
    found = [
        success(apgd, victim, prey, eps=0.1, budget=101),
        success(apgd, victim, prey, eps=0.1, budget=101, loss="dlr"),
        success(apgd_t, victim, prey, eps=0.1, budget=150, targets=3),
    ]
    assert 0.1 < plain < 0.9
    assert max(found) >= plain
    assert min(found) > plain - 0.04
    assert success(apgd, victim, prey, eps=0.3, budget=101) == 1.0


def test_stops_where_it_has_won(victim, prey):
    result = run(apgd, victim, *prey, eps=0.3, budget=101)
    assert np.median(result.queries) < 10


def test_restarts_share_the_budget(victim, prey):
    x, y = prey[0][:8], prey[1][:8]
    result = run(apgd, victim, x, y, eps=0.01, budget=40, restarts=4)
    assert result.queries.tolist() == [40] * 8


def test_targets_come_in_the_order_of_the_clean_logits(victim, prey):
    x, y = prey[0][:5], prey[1][:5]
    goals = apgd_t.wrong_classes(victim, x, y)
    with torch.no_grad():
        logits = victim(rows(x)).numpy()
    ranked = np.take_along_axis(logits, goals, axis=1)
    assert goals.shape == (5, 9)
    assert (np.diff(ranked, axis=1) <= 0).all()
    assert not (goals == y[:, None]).any()


def test_two_classes_are_too_few_for_targets():
    with pytest.raises(ValueError, match="four classes"):
        run(apgd_t, planes([[0.0], [1.0]]), np.zeros((1, 1), np.float32), np.array([0]), eps=0.1, budget=50)
