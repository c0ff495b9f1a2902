"""How a base attack runs behind a disguise: what is paid, what nests, how answers are put together."""

import numpy as np
import pytest

from adversary.adaptive.wrapping import Pooled, Purse, gathered, gathered_labels
from adversary.attack import REFUSED, BudgetSpent, Refused
from adversary.catalogue import CATALOGUE
from tests.adversary.adaptive.defences import known
from tests.adversary.evasion.oracles import REFUSAL, linear


class Scripted:
    """Answers with what a test wrote down, call after call."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def labels(self, x):
        return np.array(self.answers.pop(0))

    def probabilities(self, x):
        answer = self.answers.pop(0)
        return answer if isinstance(answer, Refused) else np.array(answer, np.float64)


X = np.zeros((2, 3), np.float32)


def test_a_purse_pays_and_stops_before_its_end():
    oracle = linear([1.0, 1.0, 1.0], 1.0)
    purse = Purse(oracle, 5)
    assert purse.labels(X).tolist() == [0, 0]
    assert purse.probabilities(np.ones((2, 3))).argmax(axis=1).tolist() == [1, 1]  # float64 is sent as float32
    with pytest.raises(BudgetSpent):
        purse.labels(X)
    assert (purse.spent, oracle.sent) == (4, 4)


def test_parts_are_put_in_their_places():
    assert gathered_labels(3, [(np.array([2, 0]), np.array([5, REFUSED]))]).tolist() == [REFUSED, REFUSED, 5]
    half = gathered(2, [(np.array([1]), np.array([[0.25, 0.75]])), (np.array([0]), REFUSAL)])
    assert np.isnan(half[0]).all()
    assert half[1].tolist() == [0.25, 0.75]
    assert gathered(1, [(np.array([0]), REFUSAL)]) is REFUSAL


def test_pooled_labels_are_the_most_frequent_of_those_answered():
    pooled = Pooled(Scripted([3, 1], [REFUSED, 1], [3, 2], [4, REFUSED]), lambda x: x, 4)
    assert pooled.labels(X).tolist() == [3, 1]
    assert Pooled(Scripted([REFUSED, 0], [REFUSED, 0]), lambda x: x, 2).labels(X).tolist() == [REFUSED, 0]


def test_pooled_probabilities_are_the_mean_of_those_answered():
    nan = float("nan")
    pooled = Pooled(Scripted([[1.0, 0.0], [nan, nan]], REFUSAL, [[0.5, 0.5], [nan, nan]]), lambda x: x, 3)
    answer = pooled.probabilities(X)
    assert answer[0].tolist() == [0.75, 0.25]
    assert np.isnan(answer[1]).all()
    assert Pooled(Scripted(REFUSAL, REFUSAL), lambda x: x, 2).probabilities(X) is REFUSAL


def test_every_version_is_made_anew():
    shown = []
    oracle = linear([1.0, 1.0, 1.0], 1.0)
    original = oracle.logits
    oracle.logits = lambda x: shown.append(x.copy()) or original(x)
    rng = np.random.default_rng(0)
    Pooled(Purse(oracle, 100), lambda x: np.clip(x + 0.1 * rng.random(x.shape), 0, 1), 3).labels(X)
    assert len({rows.tobytes() for rows in shown}) == 3


def test_disguises_nest(victim, prey):
    oracle = known(victim)
    result = CATALOGUE["sybil-square"].load()(
        oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=100, rng=np.random.default_rng(0),
        identities=4, options={"base": "square", "repeats": 2}, base="averaging-square",
    )  # fmt: skip
    assert result.queries.tolist() == [oracle.sent] == [100]
    assert set(oracle.callers) == {0, 1, 2, 3}


def test_an_option_reaches_the_base_attack(victim, prey):
    oracle = known(victim)
    CATALOGUE["averaging-hop-skip-jump"].load()(
        oracle, prey[0][:1], prey[1][:1], eps=1e-3, budget=400, rng=np.random.default_rng(0),
        repeats=2, starts=prey[0][1:2], options={"batch": 7},
    )  # fmt: skip
    assert max(oracle.calls) == 7
