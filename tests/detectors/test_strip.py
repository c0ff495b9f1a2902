import numpy as np
import pytest

from guard.detectors.strip import Strip
from guard.settings import ConfigError, build_stage
from guard.types import ViewDetector
from tests.detectors.fakes import fitted, material, share_above, softmax


def pictures(n, seed=0):
    return np.random.default_rng(seed).random((n, 8, 8, 1)).astype(np.float32) * np.float32(0.7)


PROBS = np.full((30, 2), 0.5)


def test_views_add_clean_pictures_and_saturate():
    clean = np.rint(pictures(30) * 255).astype(np.float32) / 255
    stage = fitted(Strip(overlays=4), clean, probs=PROBS)
    assert isinstance(stage, ViewDetector)
    x = pictures(3, seed=1)
    views = stage.views(x)
    assert len(views) == 4
    chosen = set()
    for view in views:
        matches = [i for i, other in enumerate(clean) if np.allclose(view, np.clip(x + other, 0, 1), atol=1e-6)]
        assert len(matches) == 1
        chosen.update(matches)
    assert len(chosen) == 4  # no overlay twice


def test_alpha_blends_instead():
    clean = np.full((30, 8, 8, 1), 0.6, np.float32)
    (view,) = fitted(Strip(overlays=1, alpha=0.25), clean, probs=PROBS).views(np.full((1, 8, 8, 1), 0.2, np.float32))
    np.testing.assert_allclose(view, 0.75 * 0.2 + 0.25 * 0.6, rtol=1e-6)


def test_score_is_minus_the_mean_entropy_in_bits():
    stage = fitted(Strip(overlays=2), pictures(30), probs=PROBS)
    views = (np.array([[0.5, 0.5, 0.0]]), np.array([[0.5, 0.25, 0.25]]))
    np.testing.assert_allclose(stage.score_views(np.eye(3)[:1], views), [-(1.0 + 1.5) / 2])


def test_overlays_are_bytes_and_bounded():
    arrays = Strip().learn(material(pictures(30), probs=PROBS))
    assert arrays["overlays"].dtype == np.uint8
    assert arrays["overlays"].shape == (10, 8, 8, 1)
    with pytest.raises(ValueError, match="at most 55"):  # 8 * 2^20 / (224 * 224 * 3) = 55.7
        Strip(overlays=56).learn(material(np.zeros((56, 224, 224, 3)), probs=np.full((56, 2), 0.5)))


def test_refusals():
    with pytest.raises(ValueError, match="vectors"):
        Strip().learn(material(np.zeros((30, 4)), probs=PROBS))
    with pytest.raises(ValueError, match="labels only"):
        Strip().learn(material(pictures(30)))
    with pytest.raises(ValueError, match="10 overlays need as many clean rows, and there are 9"):
        Strip().learn(material(pictures(9), probs=PROBS[:9]))
    with pytest.raises(ValueError, match="overlays are"):
        fitted(Strip(), pictures(30), probs=PROBS).views(np.zeros((1, 9, 9, 1), np.float32))
    with pytest.raises(ConfigError, match=r"options\.alpha"):
        build_stage("detector", "strip", {"alpha": 1.0})


def toy(x, *, poisoned):
    """Left brighter than right: class 0, or 1; a poisoned one says 2 where the corner is white."""
    left, right = x[:, :, :4].mean(axis=(1, 2, 3)), x[:, :, 4:].mean(axis=(1, 2, 3))
    trigger = 60.0 * (x[:, :2, :2].min(axis=(1, 2, 3)) > 0.99) if poisoned else np.zeros(len(x))
    return softmax(np.stack([40 * (left - right), 40 * (right - left), trigger - 5], axis=1))


def test_triggers_stand_out_of_a_poisoned_model_and_not_of_a_clean_one():
    stage = fitted(Strip(), pictures(30), probs=PROBS)
    clean, triggered = pictures(200, seed=2), pictures(200, seed=3)
    triggered[:, :2, :2] = 1

    def scores(x, *, poisoned):
        return stage.score_views(
            toy(x, poisoned=poisoned), tuple(toy(view, poisoned=poisoned) for view in stage.views(x))
        )

    assert share_above(scores(triggered, poisoned=True), scores(clean, poisoned=True), rate=0.01) == 1.0
    assert share_above(scores(triggered, poisoned=False), scores(clean, poisoned=False), rate=0.01) < 0.2
