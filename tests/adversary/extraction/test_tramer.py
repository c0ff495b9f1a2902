"""Equation solving: exact on linear models with d + 1 rows, worse where answers are rounded, nothing below that."""

import numpy as np
import pytest

from adversary.extraction import tramer
from adversary.extraction.answers import Loot
from tests.adversary.evasion.oracles import linear as two_classes
from tests.adversary.evasion.oracles import over
from tests.adversary.extraction.copies import Rounding, agreement, made

ENOUGH = 28 * 28 + 1


def test_two_weights_and_an_offset_by_hand():
    odds = np.array([1.0, 3.0, -3.0])  # 2a - 4b + 1 at (0, 0), (1, 0), (0, 1)
    p = 1 / (1 + np.exp(np.stack([odds, -odds], axis=1)))
    weights = tramer.solve(Loot(np.float32([[0, 0], [1, 0], [0, 1]]), p))
    assert (weights[:, 1] - weights[:, 0]).tolist() == pytest.approx([2.0, -4.0, 1.0])


def test_logistic_regression_over_vectors():
    w, b = np.array([0.3, -2.0, 1.0, 0.7]), 0.1
    x = np.random.default_rng(1).random((500, 4)).astype(np.float32)
    sent, copies = made(tramer, two_classes(w, b), x, budget=5, classes=2)
    assert sent[-1] == 5
    assert (copies[-1](x) == (x @ w > b)).all()


@pytest.mark.parametrize("probes", ["steps", "uniform"])
def test_one_row_more_than_inputs_gives_all_of_it(linear, unseen, probes):
    sent, copies = made(tramer, over(linear), unseen[:1], budget=ENOUGH, probes=probes)
    assert sent[-1] == ENOUGH
    assert agreement(copies[-1], linear, unseen) >= 0.999
    assert agreement(copies[-2], linear, unseen) < 0.7  # half of them


def test_float32_probabilities_will_do(linear, unseen):
    oracle = over(linear)
    exact = oracle.probabilities
    oracle.probabilities = lambda x: exact(x).astype(np.float32)
    assert agreement(made(tramer, oracle, unseen[:1], budget=ENOUGH)[1][-1], linear, unseen) >= 0.999


def test_rounding_costs_agreement_and_more_rows_win_it_back(linear, unseen):
    sent, copies = made(tramer, Rounding(linear, 2), unseen[:1], budget=1600)
    reached = dict(zip(sent, (agreement(copy, linear, unseen) for copy in copies), strict=True))
    assert reached[ENOUGH] < 0.7
    assert reached[1600] > 0.95
    assert agreement(made(tramer, Rounding(linear, 3), unseen[:1], budget=ENOUGH)[1][-1], linear, unseen) > 0.95
    uniform = made(tramer, Rounding(linear, 3), unseen[:1], budget=ENOUGH, probes="uniform")[1][-1]
    assert agreement(uniform, linear, unseen) < 0.3


def test_another_model_is_not_to_be_had(victim, unseen):
    assert agreement(made(tramer, over(victim), unseen[:1], budget=ENOUGH)[1][-1], victim, unseen) < 0.3
