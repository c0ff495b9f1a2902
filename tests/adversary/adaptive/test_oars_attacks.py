"""OARS's variants: a defence that refuses what resembles earlier queries stops the plain attack, and not these."""

import numpy as np
import pytest

from adversary.attack import REFUSED, norms
from adversary.catalogue import CATALOGUE
from adversary.gradients import predict
from tests.adversary.adaptive.defences import Similar, refused_share
from tests.adversary.evasion.oracles import linear, over


def each(name, endpoint, x, y, *, eps, budget, **options):
    """One endpoint a victim -> the adversarial images, the endpoints."""
    found, oracles = [], []
    for i in range(len(x)):
        oracle, rng = endpoint(), np.random.default_rng([7, i])
        result = CATALOGUE[name].load()(oracle, x[i : i + 1], y[i : i + 1], eps=eps, budget=budget, rng=rng, **options)
        assert result.queries.tolist() == [oracle.sent]
        found.append(result.x_adv)
        oracles.append(oracle)
    return np.concatenate(found), oracles


@pytest.mark.parametrize(
    ("name", "eps", "budget", "victims"),
    [
        ("oars-nes", 0.3, 1500, 6),
        ("oars-square", 0.3, 800, 10),
        ("oars-boundary", 4.0, 4500, 3),
        ("oars-hop-skip-jump", 3.0, 2500, 3),
        ("oars-qeba", 3.0, 2000, 4),
        ("oars-surfree", 3.0, 1500, 4),
    ],
)
def test_without_a_defence_it_succeeds_as_the_plain_attack_does(victim, prey, name, eps, budget, victims):
    x, y = prey[0][:victims], prey[1][:victims]
    x_adv, _ = each(name, lambda: over(victim), x, y, eps=eps, budget=budget)
    assert (predict(victim, x_adv) != y).mean() > 0.8
    assert norms(x_adv - x, CATALOGUE[name].norm).max() <= eps + 1e-5


@pytest.mark.parametrize(
    ("name", "radius", "plain"),
    [("nes", 1.0, {"batch": 1, "samples": 20}), ("square", 3.0, {})],
)
def test_scores_behind_a_stateful_defence(victim, prey, name, radius, plain):
    x, y = prey[0][:6], prey[1][:6]

    def endpoint():
        return over(victim, refuse=Similar(radius))

    stopped, oracles = each(name, endpoint, x, y, eps=0.25, budget=700, **plain)
    through, adapted = each(f"oars-{name}", endpoint, x, y, eps=0.25, budget=700)
    plain_success, success = ((predict(victim, x_adv) != y).mean() for x_adv in (stopped, through))
    assert success > 0.8
    assert plain_success <= success - 0.3
    assert np.mean([refused_share(o) for o in adapted]) < np.mean([refused_share(o) for o in oracles])


SIDE = 12
GAP = 1.0


@pytest.fixture
def plane():
    """A smooth plane at distance GAP of an image, and an input beyond it."""
    i = (np.arange(SIDE) + 0.5) / SIDE
    w = np.cos(np.pi * i)[None, :] + 0.5 * np.cos(np.pi * i)[:, None]
    w /= np.linalg.norm(w)
    rng = np.random.default_rng(0)
    x = rng.uniform(0.3, 0.7, (1, 1, SIDE, SIDE)).astype(np.float32)
    beyond = np.clip(x + 3 * w + 0.35 * rng.standard_normal(x.shape), 0, 1).astype(np.float32)
    return w, float((x[0, 0] * w).sum()) + GAP, x, beyond


@pytest.mark.parametrize(("name", "plain"), [("hop-skip-jump", {"batch": 1}), ("qeba", {"batch": 1}), ("boundary", {})])
def test_labels_behind_a_stateful_defence(plane, name, plain):
    w, b, x, beyond = plane

    def endpoint():
        return linear(w, b, refuse=Similar(0.3))

    excess, refused = [], []
    for attack, options in ((name, plain), (f"oars-{name}", {})):
        found, oracles = each(attack, endpoint, x, np.array([0]), eps=0.0, budget=1500, starts=beyond, **options)
        assert linear(w, b).labels(found).tolist() == [1]
        excess.append(float(norms(found - x, "l2")[0]) - GAP)
        refused.append(refused_share(oracles[0]))
    assert excess[1] < 0.75 * excess[0]
    assert refused[0] > 0.9
    assert refused[1] < 0.5


def test_surfree_behind_a_stateful_defence(victim, prey):
    x, y = prey[0][:4], prey[1][:4]
    sizes, refused = [], []
    for name in ("surfree", "oars-surfree"):
        found, oracles = each(name, lambda: over(victim, refuse=Similar(2.0)), x, y, eps=1.0, budget=500)
        assert (predict(victim, found) != y).all()
        sizes.append(float(np.median(norms(found - x, "l2"))))
        refused.append(np.mean([refused_share(o) for o in oracles]))
    assert sizes[1] < 0.9 * sizes[0]
    assert refused[0] > 0.9
    assert refused[1] < 0.7


class Shut:
    """Answers the first row, then nothing."""

    asked = 0

    def labels(self, x):
        self.asked += len(x)
        return np.full(len(x), 1 if self.asked == 1 else REFUSED, np.int64)


def test_who_is_refused_for_good_spends_his_budget():
    x = np.full((1, 1, 4, 4), 0.5, np.float32)
    found = CATALOGUE["oars-boundary"].load()(
        Shut(), x, np.zeros(1, np.int64), eps=0.01, budget=40_000, rng=np.random.default_rng(0), starts=x + 0.4
    )
    assert found.queries[0] > 39_900
    assert np.isfinite(found.x_adv).all()
