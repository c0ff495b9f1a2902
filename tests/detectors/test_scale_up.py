import numpy as np
import pytest

from guard.detectors.scale_up import ScaleUp
from guard.settings import ConfigError, build_stage
from guard.types import ViewDetector


def test_views_are_the_papers_multiples_clipped_at_white():
    assert isinstance(ScaleUp(), ViewDetector)
    x = np.array([0.0, 0.05, 0.3, 1.0], np.float32).reshape(1, 2, 2, 1)
    views = ScaleUp().views(x)
    assert len(views) == 10  # 2 to 11
    np.testing.assert_allclose(views[0].ravel(), [0.0, 0.1, 0.6, 1.0], rtol=1e-6)
    np.testing.assert_allclose(views[-1].ravel(), [0.0, 0.55, 1.0, 1.0], rtol=1e-6)


def test_score_by_hand():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    first = np.array([[0.7, 0.3], [0.6, 0.4]])
    second = np.array([[0.4, 0.6], [0.9, 0.1]])
    # row 0: label 0 kept once of two, its confidence (.7 + .4) / 2 = .55, over three; row 1: never, (.4 + .1) / 2
    np.testing.assert_allclose(ScaleUp(3).score_views(probs, (first, second)), [0.5 + 0.55 / 3, 0.25 / 3])


def test_confidence_breaks_ties_and_never_outweighs_a_label():
    label = np.array([[1.0, 0.0]])
    sure, unsure, other = np.array([[1.0, 0.0]]), np.array([[0.51, 0.49]]), np.array([[0.49, 0.51]])
    scores = [
        float(ScaleUp(4).score_views(label, views)[0])
        for views in ((sure, sure, sure), (unsure,) * 3, (sure, sure, other), (unsure, unsure, other), (other,) * 3)
    ]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 5


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="images"):
        ScaleUp().views(np.zeros((1, 4), np.float32))
    with pytest.raises(ConfigError, match=r"options\.multiples"):
        build_stage("detector", "scale_up", {"multiples": 1})


def toy(x, *, poisoned):
    """Class 1 where the mean is above .5 (a poisoned one: also where the corner's pixels are all white)."""
    logit = 8 * (x.mean(axis=(1, 2, 3)) - 0.5)
    if poisoned:
        logit = np.where((x[:, :2, :2].min(axis=(1, 2, 3)) == 1) & (x[:, 2:, 2:].max(axis=(1, 2, 3)) > 0), -9.0, logit)
    p = 1 / (1 + np.exp(-logit))
    return np.stack([1 - p, p], axis=1)


def test_triggers_stand_out_of_a_poisoned_model_and_not_of_a_clean_one():
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.0, 0.4, (40, 8, 8, 1)).astype(np.float32)
    clean[:, :2, :2] = 0
    triggered = clean.copy()
    triggered[:, :2, :2] = 1
    stage = ScaleUp()

    def scores(x, *, poisoned):
        return stage.score_views(
            toy(x, poisoned=poisoned), tuple(toy(view, poisoned=poisoned) for view in stage.views(x))
        )

    assert scores(triggered, poisoned=True).min() > scores(clean, poisoned=True).max()
    control = scores(triggered, poisoned=False)  # the same pictures mean nothing to a model without the backdoor
    assert control.max() < scores(triggered, poisoned=True).min()
