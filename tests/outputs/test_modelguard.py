import numpy as np
import pytest

from guard.equipping import equip
from guard.outputs.modelguard import ModelGuard
from guard.types import Material
from tests.outputs.attackers import Model
from tests.outputs.worlds import every, l1, leads, peaked


def material(probs):
    return Material(np.zeros((len(probs), 1), np.float32), probs, probs.shape[1])


def working(probs, eps=1.0):
    stage = ModelGuard(eps)
    return equip(stage, "output/modelguard", {}, stage.learn(material(probs)), b"")


@pytest.mark.parametrize("eps", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_budget_holds_for_answers_never_seen(eps, classes):
    stage = working(peaked(500, classes), eps)
    probs = np.concatenate([peaked(200, classes, seed=1, most=30.0), peaked(200, classes, seed=2, most=0.1)])
    out = stage.protect(probs, every(400))
    assert l1(out, probs).max() <= eps + 1e-5
    assert leads(out, probs).all()


def test_of_two_classes_by_hand():
    """Centres grow until each answer lies within eps: 0.1 and 0.5 here; an answer in the middle takes the first."""
    probs = np.array([[0.9, 0.1], [0.5, 0.5], [0.92, 0.08], [0.88, 0.12]])
    arrays = ModelGuard(0.2).learn(material(probs))
    np.testing.assert_allclose(arrays["centres"], [[0.9, 0.1], [0.5, 0.5]], atol=1e-6)
    assert arrays["labels"].tolist() == [0, 0]
    assert arrays["confidence"] == pytest.approx(0.8)
    stage = working(probs, 0.2)
    asked = np.array([[0.85, 0.15], [0.97, 0.03], [0.75, 0.25], [0.2, 0.8]])
    wanted = [[0.9, 0.1], [0.9, 0.1], [0.85, 0.15], [0.2, 0.8]]
    out = stage.protect(asked, every(4))
    np.testing.assert_allclose(out, wanted, atol=1e-6)  # the third, of none, is moved by eps towards the nearest


def test_of_centres_within_reach_the_commoner_is_taken():
    """0.68 lies nearer to 0.5, but 0.9 stands for three clean answers."""
    stage = working(np.array([[0.9, 0.1], [0.5, 0.5], [0.92, 0.08], [0.88, 0.12]]), 0.5)
    np.testing.assert_allclose(stage.protect(np.array([[0.68, 0.32]]), every(1)), [[0.9, 0.1]], atol=1e-6)


def test_few_answers_are_told():
    probs = peaked(2000, 10)
    out = working(probs[:1000]).protect(probs, every(2000))
    assert len(np.unique(probs, axis=0)) == 2000  # the control
    assert len(np.unique(out.round(9), axis=0)) < 60
    coarse = len(np.unique(out.round(9), axis=0))
    assert len(np.unique(working(probs[:1000], 0.3).protect(probs, every(2000)).round(9), axis=0)) > 2 * coarse


def test_what_is_told_says_little_of_what_was_there():
    """The best guess of the confidence from the answer told, against that from the label alone."""
    probs = peaked(4000, 10)
    out = working(peaked(1000, 10, seed=5)).protect(probs, every(4000))
    _, told = np.unique(out.round(9), axis=0, return_inverse=True)
    spread = probs.max(axis=1).std()
    assert explained(probs.max(axis=1), np.arange(4000)) == 0  # the control: each answer told as it is
    assert explained(probs.max(axis=1), told.ravel()) > 0.4 * spread


def explained(values, groups):
    """Root mean square of what the best guess a group leaves over."""
    means = np.bincount(groups, values) / np.maximum(np.bincount(groups), 1)
    return np.sqrt(np.mean((values - means[groups]) ** 2))


def test_most_steps_of_an_attacker_do_not_show():
    model = Model()
    stage = working(model(model.inputs(500, seed=3)))
    x = model.inputs(100)
    step = np.clip(x + 0.05 * np.random.default_rng(0).choice([-1, 1], x.shape), 0, 1).astype(np.float32)
    shown = [l1(ask(step), ask(x)) > 0 for ask in (model, lambda z: stage.protect(model(z), every(len(z))))]
    assert shown[0].all()  # the control
    assert shown[1].mean() < 0.1


def test_a_class_without_clean_answers_is_flat():
    out = working(np.array([[0.8, 0.1, 0.1]]), 2.0).protect(np.array([[0.1, 0.3, 0.6]]), every(1))
    np.testing.assert_allclose(out, [[0.1, 0.1, 0.8]], atol=1e-6)


def test_labels_only():
    with pytest.raises(ValueError, match="labels only"):
        ModelGuard().learn(Material(np.zeros((1, 1), np.float32), None, 3))
