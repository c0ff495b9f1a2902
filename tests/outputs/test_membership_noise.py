import numpy as np
import pytest

from guard.equipping import equip
from guard.outputs.membership_noise import MembershipNoise
from guard.types import Material
from tests.outputs.worlds import SECRET, every, inputs, l1, leads, peaked, softmax


def answers(n, seed, sure):
    """Of a model that has overfitted: `sure` adds to the logit of the class, as it does for members."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 10))
    logits[np.arange(n), rng.integers(10, size=n)] += sure + rng.uniform(0, 4, n)
    return softmax(logits)


def working(eps=2.0, secret=SECRET, learned=None):
    stage = MembershipNoise(eps)
    probs = answers(1000, 9, 1.0) if learned is None else learned
    material = Material(np.zeros((len(probs), 1), np.float32), probs, probs.shape[1], seed=4)
    return equip(stage, "output/membership_noise", {}, stage.learn(material), secret)


def auroc(members, others):
    """How often a member scores above a non-member; ties count half."""
    scores = np.concatenate([members, others])
    ranks = np.empty(len(scores))
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place.ravel()]
    n, m = len(members), len(others)
    return (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)


SCORES = {
    "confidence": lambda p: p.max(axis=1),
    "entropy": lambda p: (p * np.log(np.maximum(p, 1e-12))).sum(axis=1),
    "margin": lambda p: np.ptp(np.sort(p, axis=1)[:, -2:], axis=1),
    "a linear classifier of sorted answers": lambda p: np.sort(p, axis=1) @ np.array([*np.full(8, -1.0), 0.5, 1.0]),
}


@pytest.mark.parametrize("score", SCORES)
def test_members_look_like_others(score):
    n = 1500
    members, others = answers(n, 1, 3.0), answers(n, 2, 1.0)
    stage, rate = working(), SCORES[score]
    seen = stage.protect_keyed(inputs(2 * n), np.concatenate([members, others]), every(2 * n))
    assert auroc(rate(members), rate(others)) > 0.75  # the control
    assert auroc(rate(seen[:n]), rate(seen[n:])) == pytest.approx(0.5, abs=0.035)  # three standard deviations: 0.032


@pytest.mark.parametrize("eps", [0.05, 0.2, 0.5])
def test_the_expected_distortion_stays_within_the_budget(eps):
    probs = answers(3000, 1, 3.0)
    out = working(eps).protect_keyed(inputs(3000), probs, every(3000))
    moved = l1(out, probs)
    assert moved.mean() <= eps * 1.1
    assert 0 < (moved > 0).mean() < 1
    free = l1(working().protect_keyed(inputs(3000), probs, every(3000)), probs)
    assert free.mean() > moved.mean()
    assert moved.mean() == pytest.approx(np.minimum(free, eps).mean(), rel=0.15)


def test_a_small_budget_hides_less():
    n = 1500
    members, others = answers(n, 1, 3.0), answers(n, 2, 1.0)
    found = []
    for eps in (0.1, 0.4, 2.0):
        seen = working(eps).protect_keyed(inputs(2 * n), np.concatenate([members, others]), every(2 * n))
        found.append(auroc(seen[:n].max(axis=1), seen[n:].max(axis=1)))
    assert found[0] > found[1] + 0.02 > found[2] + 0.04


def test_classes_keep_their_ranks_and_probabilities_are_a_clean_answers():
    probs, learned = peaked(300, 10), answers(1000, 9, 1.0)
    out = working(learned=learned).protect_keyed(inputs(300), probs, every(300))
    assert leads(out, probs).all()
    np.testing.assert_array_equal(np.argsort(-out, axis=1), np.argsort(-probs, axis=1))
    clean, told = (np.sort(p, axis=1) for p in (learned, out))
    assert all(l1(clean, row[None]).min() < 1e-5 for row in told)
    for row in out:  # of the same class
        own = learned[learned.argmax(axis=1) == row.argmax()]
        assert np.abs(own.max(axis=1) - row.max()).min() < 1e-6


def test_the_input_and_the_secret_decide():
    probs, x = answers(50, 1, 3.0), inputs(50)
    out = working().protect_keyed(x, probs, every(50))
    np.testing.assert_array_equal(out, working().protect_keyed(x, probs, every(50)))
    assert (out != working(secret=b"t" * 32).protect_keyed(x, probs, every(50))).any(axis=1).mean() > 0.9
    assert (out != working().protect_keyed(inputs(50, seed=8), probs, every(50))).any(axis=1).mean() > 0.9
