import numpy as np
import pytest

from guard.equipping import equip
from guard.outputs.adaptive_misinformation import AdaptiveMisinformation
from tests.outputs.worlds import SECRET, every, inputs, l1, leads, peaked


def working(secret=SECRET, **options):
    return equip(AdaptiveMisinformation(**options), "output/adaptive_misinformation", {}, {}, secret)


@pytest.mark.parametrize(("confidence", "share"), [(0.7, 0.5), (0.701, 0.26894), (0.699, 0.73106), (0.6, 1.0)])
def test_the_switch(confidence, share):
    """1 / (1 + exp(1000 (max y - delta))); at delta an exact half."""
    probs = np.array([[confidence, *np.full(4, (1 - confidence) / 4)]])
    out = working(keep_label=False).protect_keyed(inputs(1), probs, every(1))
    moved = confidence - (1 - confidence) / 4  # by which the true class falls where all of it is wrong
    assert (confidence - out[0, 0]) / moved == pytest.approx(share, abs=1e-4)
    assert np.sort(out[0])[-2:].sum() == pytest.approx(confidence + (1 - confidence) / 4)


def test_sure_answers_are_not_touched():
    probs = peaked(300, 10)
    out = working().protect_keyed(inputs(300), probs, every(300))
    sure = probs.max(axis=1) > 0.75
    assert 30 < sure.sum() < 270
    np.testing.assert_array_equal(out[sure], probs[sure])
    assert (l1(out, probs)[probs.max(axis=1) < 0.65] > 1e-3).all()


def test_labels_change_only_where_they_may():
    probs = peaked(300, 10)
    unsure = probs.max(axis=1) < 0.65
    kept = working().protect_keyed(inputs(300), probs, every(300))
    published = working(keep_label=False).protect_keyed(inputs(300), probs, every(300))
    assert leads(kept, probs).all()
    assert (published[unsure].argmax(axis=1) != probs[unsure].argmax(axis=1)).all()
    wrong = published[unsure].argmax(axis=1)
    second = np.argsort(-kept[unsure], axis=1)[:, 1]
    assert (second == wrong).mean() > 0.75  # by chance 1 in 9


def test_as_sure_as_an_honest_answer():
    """Nothing but the classes tells a wrong answer: its probabilities are those of the true one."""
    probs = peaked(50, 10, most=1.0)
    out = working(keep_label=False, slope=10_000.0).protect_keyed(inputs(50), probs, every(50))
    np.testing.assert_allclose(np.sort(out, axis=1), np.sort(probs, axis=1), atol=1e-9)


def test_wrong_classes_are_spread_over_inputs_and_fixed_for_each():
    probs = np.tile([0.4, *np.full(9, 0.6 / 9)], (500, 1))
    stage = working(keep_label=False)
    out = stage.protect_keyed(inputs(500), probs, every(500))
    counts = np.bincount(out.argmax(axis=1), minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 25  # 55.6 each, standard deviation 7
    np.testing.assert_array_equal(out, stage.protect_keyed(inputs(500), probs, every(500)))
    assert (working(b"t" * 32, keep_label=False).protect_keyed(inputs(500), probs, every(500)) != out).any()


def test_two_classes():
    probs = np.array([[0.4, 0.6]])
    np.testing.assert_allclose(working(keep_label=False).protect_keyed(inputs(1), probs, every(1)), [[0.6, 0.4]])
    kept = working().protect_keyed(inputs(1), probs, every(1))
    assert leads(kept, probs).all()
    assert kept[0, 1] == pytest.approx(0.505)  # 0.95 of the way to the tie
