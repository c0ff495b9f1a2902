"""Figures of copies, memberships and inversions, by hand."""

import numpy as np
import pytest

from adversary import judge_leaks
from adversary.runner import NEVER

WATCHED = {
    "flagged_at": np.array([NEVER]), "sent": np.array([100]), "flagged_rows": np.array([0]),
    "refused_rows": np.array([0]),
}  # fmt: skip


def test_auroc_counts_ties_half():
    assert judge_leaks.auroc(np.array([3.0, 1.0]), np.array([2.0, 0.0])) == 0.75
    assert judge_leaks.auroc(np.array([1.0]), np.array([1.0])) == 0.5
    assert judge_leaks.auroc(np.array([2.0, 2.0]), np.array([2.0, 1.0])) == 0.75


def test_advantage_is_of_the_attacks_own_threshold():
    assert judge_leaks.advantage(np.array([0.1, 0.2, -1.0, 0.0]), np.array([0.1, -1.0, -2.0, 0.0])) == 0.25


def test_a_copy_is_held_against_the_bare_model_and_against_the_truth():
    unit = {
        **WATCHED, "y": np.array([0, 1, 2, 3]), "bare": np.array([0, 1, 2, 0]), "spent": np.array([10, 100]),
        "answered": np.array([5, 60]), "copied": np.array([[0, 0, 0, 0], [0, 1, 1, 3]]),
    }  # fmt: skip
    found = judge_leaks.copied([unit, {**unit, "flagged_at": np.array([20])}], [3, 4])
    assert [(p.seed, p.sent, p.answered) for p in found.copies] == [(3, 10, 5), (3, 100, 60), (4, 10, 5), (4, 100, 60)]
    assert [p.agreement.rate for p in found.copies[:2]] == [0.5, 0.5]
    assert [p.task_accuracy.rate for p in found.copies[:2]] == [0.25, 0.75]
    assert (found.agreement.hits, found.agreement.n) == (4, 8)
    assert found.task_accuracy.rate == 0.75
    assert found.model_accuracy.rate == 0.75
    assert found.answered.median == 60
    assert (found.watched.runs, found.watched.sent, found.watched.noticed.hits) == (2, 200, 1)
    assert found.watched.queries_to_detection.median == 20


def membership(shift, n=400):
    rng = np.random.default_rng(0)
    member = np.arange(n) % 2 == 0
    scores = rng.normal(size=n) + np.where(member, shift, 0.0)
    return {**WATCHED, "member": member, "scores": scores, "queries": np.ones(n, int)}


def test_a_model_that_leaks_nothing_is_at_chance():
    found = judge_leaks.inferred([membership(0.0)])
    assert found.auroc.interval_95[0] < 0.5 < found.auroc.interval_95[1]
    assert found.advantage.interval_95[0] < 0.0 < found.advantage.interval_95[1]
    assert found.tpr_at_1_fpr.rate < 0.05


def test_one_that_leaks_is_above_it():
    found = judge_leaks.inferred([membership(2.0), membership(2.0)])
    assert found.auroc.value == pytest.approx(0.92, abs=0.03)  # Phi(2 / sqrt 2)
    assert found.auroc.interval_95[0] > 0.88
    assert found.tpr_at_1_fpr.rate == pytest.approx(0.37, abs=0.15)  # Phi(2 - 2.33)
    assert (found.members, found.outsiders, found.cost.median) == (400, 400, 1)
    assert judge_leaks.inferred([membership(2.0)]) == judge_leaks.inferred([membership(2.0)])


def test_a_rebuilt_class_is_judged_by_others():
    unit = {
        "y": np.array([0, 1, 2]), "answered": np.array([0, 1, -1]), "recognised": np.array([0, 2, 2]),
        "likeness": np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.1, 0.2, 0.3]]), "queries": np.array([5, 6, 7]),
        **{name: np.resize(values, 3) for name, values in WATCHED.items()},
    }  # fmt: skip
    found = judge_leaks.inverted([unit])
    shares = [share.hits for share in (found.answered, found.recognised, found.nearest)]
    assert shares == [2, 2, 2]
    assert found.likeness.median == pytest.approx(0.3)
    assert (found.wanted, found.cost.median, found.watched.runs) == (3, 6, 3)
