import numpy as np
import pytest

from guard.detectors.pid import Pid, _evidence, _margin
from guard.types import AnswerDetector, Equipment
from tests.detectors.fakes import fitted, material, network, share_above, softmax


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
    stage = working(Pid(measure="margin"), lambda x: LOGITS)
    with pytest.raises(ValueError, match="3 classes, the model 2"):
        stage.score_answer(np.zeros((1, 4), np.float32), np.array([[0.5, 0.5]]))


def test_only_the_odds_are_learned():
    assert Pid().learn is not None
    assert Pid(measure="margin").learn is None


def test_evidence_by_hand():
    probs = np.array([[0.1, 0.8, 0.1], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(_margin(probs), [np.log(8), np.log(1e20)])  # a probability of 0 counts as 1e-20
    evidence = _evidence(np.log([[0.7, 0.2, 0.1]] * 2), np.array([1, 0]), _margin(probs))
    expected = [
        [np.log(0.7 / 0.2), np.log(np.log(8) + 0.05), np.log(8) / 5],
        [np.log(0.2 / 0.7), np.log(np.log(1e20) + 0.05), 3.0],  # the best other class trails; 46 nats count as 15
    ]
    np.testing.assert_allclose(evidence, expected)


def test_odds_rise_as_the_auxiliary_objects_and_where_the_served_model_is_unsure():
    rng = np.random.default_rng(0)
    lead = rng.normal(4, 2, 2000)  # of the auxiliary for the served label, mostly
    margin = rng.gamma(4, 2, 2000)
    probs = softmax(np.stack([margin, np.zeros(2000), np.full(2000, -30)], 1))
    logits = lambda x: np.stack([x[:, 0], 0 * x[:, 0], 0 * x[:, 0] - 30], 1)
    stage = fitted(Pid(), lead[:, None], networks={"auxiliary": network(logits=logits)}, probs=probs, classes=3)
    answer = lambda nats: softmax(np.array([[nats, 0.0, -30.0]]))
    score = lambda lead, nats: float(stage.score_answer(np.array([[lead]], np.float32), answer(nats))[0])
    assert score(-4, 5) > score(0, 5) > score(4, 5)
    assert score(-2, 0.02) > score(-2, 3)
    assert score(4, 5) < 0 < score(-4, 0.02)


def test_refusals_where_it_learns():
    networks = {"auxiliary": network(logits=lambda x: np.zeros((len(x), 2)))}
    with pytest.raises(ValueError, match="labels only"):
        Pid().learn(material(np.zeros((20, 2)), networks=networks))
    with pytest.raises(ValueError, match="at least 16 clean rows, and there are 5"):
        Pid().learn(material(np.zeros((5, 2)), networks=networks, probs=np.full((5, 2), 0.5)))
    with pytest.raises(ValueError, match="one class"):
        Pid().learn(
            material(
                np.zeros((20, 2)),
                networks={"auxiliary": network(logits=lambda x: x[:, :1])},
                probs=np.ones((20, 1)),
            )
        )


def test_what_fools_one_linear_model_does_not_fool_the_other():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=64)
    served, auxiliary = truth + 2 * rng.normal(size=64), truth + 0.3 * rng.normal(size=64)

    def answer(x, w):
        logit = (x - 0.5) @ w
        return np.stack([-logit, logit], 1).astype(np.float32)

    label = np.sign(rng.normal(size=1200))
    x = np.clip(0.5 + 0.1 * label[:, None] * truth + 0.1 * rng.normal(size=(1200, 64)), 0, 1).astype(np.float32)
    networks = {"auxiliary": network(logits=lambda rows: answer(rows, auxiliary))}
    stage = fitted(Pid(), x[:600], networks=networks, probs=softmax(answer(x[:600], served)))
    attacked = np.clip(x - 0.15 * label[:, None] * np.sign(served), 0, 1).astype(np.float32)
    noisy = np.clip(x + 0.15 * np.sign(rng.normal(size=x.shape)), 0, 1).astype(np.float32)
    x, attacked, noisy, label = x[600:], attacked[600:], noisy[600:], label[600:]
    score = lambda rows: stage.score_answer(rows, softmax(answer(rows, served)))
    fooled = (answer(attacked, served).argmax(1) != (label > 0)) & (answer(x, served).argmax(1) == (label > 0))
    assert fooled.sum() > 100
    assert share_above(score(attacked)[fooled], score(x)) > 0.5
    assert share_above(score(noisy), score(x)) < 0.3  # as large a change that fools nobody
