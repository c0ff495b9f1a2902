"""The judge of telltales: what tells is found, what does not is not."""

import numpy as np
import pytest

from bench.telltale import judging, worlds
from bench.telltale.asking import SEEN
from bench.telltale.judging import AROUND, auroc, beside, features, judge, scored

ACCOUNT = np.arange(400) // 20


def seen_of(rng: np.random.Generator) -> np.ndarray:
    seen = rng.random((400, len(SEEN)))
    seen[:, 0] = 1.0
    return seen


def test_what_does_not_tell_is_near_chance_and_what_does_is_found() -> None:
    rng = np.random.default_rng(0)
    seen, flagged = seen_of(rng), rng.random(400) < 0.4
    blind = judge(seen, ACCOUNT, flagged, SEEN, 0)
    assert blind is not None
    assert 0.35 < blind.auroc < 0.65
    told = seen.copy()
    told[:, 1] += 0.7 * flagged  # seconds
    telling = judge(told, ACCOUNT, flagged, SEEN, 0)
    assert telling is not None
    assert telling.auroc > 0.85
    assert telling.beside > 0.85
    assert telling.low < telling.auroc < telling.high


def test_what_the_bare_model_tells_is_told_apart_from_what_guard_adds() -> None:
    rng = np.random.default_rng(3)
    unsure = rng.random(400)
    flagged = unsure + 0.6 * rng.random(400) > 1.0
    bare, same, more = seen_of(rng), seen_of(rng), seen_of(rng)
    bare[:, 9] = same[:, 9] = more[:, 9] = unsure  # entropy
    more[:, 1] += 2.0 * flagged  # seconds
    known = scored(bare, ACCOUNT, flagged, SEEN, 0)
    found = [judge(seen, ACCOUNT, flagged, SEEN, 0, known) for seen in (same, more)]
    assert [one is not None and one.auroc > 0.75 for one in found] == [True, True]
    (_, low, high), (something, least, _) = [one.more for one in found if one is not None and one.more]
    assert low < 0.03
    assert high > -0.03
    assert something >= least > 0


def test_a_verdict_that_shows_three_queries_later_is_found() -> None:
    rng = np.random.default_rng(1)
    seen, flagged = seen_of(rng), rng.random(400) < 0.4
    for i in np.flatnonzero(flagged):
        if i + 3 < 400 and ACCOUNT[i] == ACCOUNT[i + 3]:
            seen[i + 3, 0] = 0.0
    found = judge(seen, ACCOUNT, flagged, SEEN, 0)
    assert found is not None
    assert found.auroc > 0.85


def test_too_few_are_not_judged() -> None:
    flagged = np.zeros(400, bool)
    flagged[:10] = True
    assert judge(seen_of(np.random.default_rng(0)), ACCOUNT, flagged, SEEN, 0) is None


def test_features_stay_within_an_account() -> None:
    x = features(np.arange(40.0)[:, None], np.arange(40) // 20)
    assert x.shape == (40, len(AROUND))
    assert np.isnan(x[20, 0])  # the query before it is another's
    assert x[20, 1:].tolist() == [20.0, 21.0, 22.0, 23.0]
    assert np.isnan(x[19, 2:]).all()


def test_auroc_and_neighbours() -> None:
    positive = np.array([True, False, True, False])
    assert auroc(np.array([3.0, 1.0, 4.0, 2.0]), positive) == 1.0
    assert auroc(np.zeros(4), positive) == 0.5
    assert beside(np.array([3.0, 1.0, 0.0, 2.0]), positive, np.zeros(4, int)) == 0.5
    assert np.isnan(beside(np.zeros(4), np.zeros(4, bool), np.zeros(4, int)))


def test_late_queries_alone_do_not_tell_neighbours_apart() -> None:
    rng = np.random.default_rng(2)
    place = np.arange(400) % 20
    flagged = rng.random(400) < place / 20
    assert auroc(place.astype(float), flagged) > 0.7
    assert beside(place.astype(float), flagged, ACCOUNT) < auroc(place.astype(float), flagged) - 0.05


@pytest.mark.parametrize("detectors", [True, False])
def test_worlds_differ_by_their_policy_alone(monkeypatch: pytest.MonkeyPatch, detectors: bool) -> None:
    monkeypatch.setattr(worlds, "profile", lambda data: f"{data}.profile")
    trees = {policy: worlds.settings("cifar10", policy, detectors=detectors)["models"][0] for policy in worlds.POLICIES}
    policies = {name: tree.pop("policy") for name, tree in trees.items()}
    assert trees["default"] == trees["loud"]
    assert policies["default"] == {}
    assert policies["loud"] == ({"on_input": "deny", "lag_rows": 1} if detectors else {"lag_rows": 1})
    assert "profile" not in worlds.settings("cifar10", None)["models"][0]
    assert judging.FEWEST > 1
