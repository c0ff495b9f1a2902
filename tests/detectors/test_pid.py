import numpy as np
import pytest

from guard.detectors.pid import Pid
from guard.types import AnswerDetector, Equipment
from tests.detectors.fakes import network, share_above, softmax


def working(stage, logits):
    return stage.equip(Equipment({"auxiliary": network(logits=logits)}))


def test_it_holds_answers_against_the_auxiliarys():
    assert Pid().needs == ("auxiliary",)
    assert isinstance(working(Pid(), lambda x: x), AnswerDetector)


LOGITS = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))
SERVED = np.array([[0.1, 0.9, 0.0]])  # the served model says 1, the auxiliary gives it .2 and its own 0 .7


@pytest.mark.parametrize(
    ("measure", "by_hand"),
    [
        ("log_probability", -np.log(0.2)),
        ("margin", np.log(0.7 / 0.2)),
        ("cross_entropy", -0.1 * np.log(0.7) - 0.9 * np.log(0.2)),
        (
            "divergence",  # halves of KL against the middle (.4, .55, .05)
            (0.1 * np.log(0.1 / 0.4) + 0.9 * np.log(0.9 / 0.55)) / 2
            + (0.7 * np.log(0.7 / 0.4) + 0.2 * np.log(0.2 / 0.55) + 0.1 * np.log(0.1 / 0.05)) / 2,
        ),
    ],
)
def test_measures_by_hand(measure, by_hand):
    stage = working(Pid(measure=measure), lambda x: LOGITS)
    np.testing.assert_allclose(stage.score_answer(np.zeros((1, 4), np.float32), SERVED), [by_hand], rtol=1e-5)


def test_a_temperature_flattens_the_auxiliarys_answer():
    stage = working(Pid(measure="log_probability", temperature=2.0), lambda x: LOGITS)
    roots = np.sqrt([0.7, 0.2, 0.1])
    by_hand = -np.log(roots[1] / roots.sum())
    np.testing.assert_allclose(stage.score_answer(np.zeros((1, 4), np.float32), SERVED), [by_hand], rtol=1e-5)


def test_other_classes_than_the_models_are_refused():
    stage = working(Pid(), lambda x: LOGITS)
    with pytest.raises(ValueError, match="3 classes, the model 2"):
        stage.score_answer(np.zeros((1, 4), np.float32), np.array([[0.5, 0.5]]))


def test_what_fools_one_linear_model_does_not_fool_the_other():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=64)
    served, auxiliary = truth + 2 * rng.normal(size=64), truth + 0.3 * rng.normal(size=64)

    def answer(x, w):
        logit = (x - 0.5) @ w
        return np.stack([-logit, logit], 1).astype(np.float32)

    label = np.sign(rng.normal(size=600))
    x = np.clip(0.5 + 0.1 * label[:, None] * truth + 0.1 * rng.normal(size=(600, 64)), 0, 1).astype(np.float32)
    stage = working(Pid(), lambda rows: answer(rows, auxiliary))
    attacked = np.clip(x - 0.15 * label[:, None] * np.sign(served), 0, 1).astype(np.float32)
    noisy = np.clip(x + 0.15 * np.sign(rng.normal(size=x.shape)), 0, 1).astype(np.float32)
    score = lambda rows: stage.score_answer(rows, softmax(answer(rows, served)))
    fooled = (answer(attacked, served).argmax(1) != (label > 0)) & (answer(x, served).argmax(1) == (label > 0))
    assert fooled.sum() > 100
    assert share_above(score(attacked)[fooled], score(x)) > 0.5
    assert share_above(score(noisy), score(x)) < 0.3  # as large a change that fools nobody
