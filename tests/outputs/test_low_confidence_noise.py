import numpy as np
import pytest

from guard.equipping import equip
from guard.outputs.low_confidence_noise import LowConfidenceNoise
from tests.outputs.worlds import SECRET, every, inputs, leads, peaked, softmax


def working(secret=SECRET, **options):
    return equip(LowConfidenceNoise(**options), "output/low_confidence_noise", {}, {}, secret)


def test_sure_answers_are_not_touched():
    probs = peaked(200, 10)
    out = working(threshold=0.5).protect_keyed(inputs(200), probs, every(200))
    sure = probs.max(axis=1) >= 0.5
    assert 20 < sure.sum() < 180
    np.testing.assert_array_equal(out[sure], probs[sure])
    assert (out[~sure] != probs[~sure]).any(axis=1).all()


def test_the_noise_on_logits_is_gaussian_of_this_width():
    probs = softmax(np.random.default_rng(0).normal(size=(400, 200)))
    out = working(sigma=0.1).protect_keyed(inputs(400), probs, every(400))
    noise = np.log(out / probs)
    noise -= noise.mean(axis=1, keepdims=True)  # what softmax does not tell
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert np.mean(np.abs(noise) < 0.1) == pytest.approx(0.683, abs=0.01)
    assert np.abs(np.corrcoef(noise[:20])[np.triu_indices(20, 1)]).mean() < 0.1  # another of each row


def test_labels_change_only_where_they_may():
    probs = softmax(0.05 * np.random.default_rng(0).normal(size=(400, 10)))
    kept = working().protect_keyed(inputs(400), probs, every(400))
    published = working(keep_label=False).protect_keyed(inputs(400), probs, every(400))
    assert leads(kept, probs).all()
    changed = published.argmax(axis=1) != probs.argmax(axis=1)
    assert 0.3 < changed.mean() < 0.8
    np.testing.assert_array_equal(kept[~changed], published[~changed])
    np.testing.assert_array_equal(np.sort(kept, axis=1), np.sort(published, axis=1))  # two change places, no more


def test_the_input_and_the_secret_decide():
    probs, x = np.full((2, 10), 0.1), inputs(2)
    one, other = (working(secret).protect_keyed(x, probs, every(2)) for secret in (SECRET, b"t" * 32))
    assert not np.allclose(one[0], one[1])
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(one, working().protect_keyed(x, probs, every(2)))


def test_a_probability_of_0_stays_small():
    out = working(threshold=1.0, sigma=1.0).protect_keyed(inputs(1), np.array([[0.6, 0.4, 0.0]]), every(1))
    assert 0 <= out[0, 2] < 1e-9
