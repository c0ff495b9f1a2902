"""The three membership attacks on a network that knows its inputs by heart, and on one that never saw them."""

import inspect

import numpy as np
import pytest

from adversary.catalogue import CATALOGUE
from adversary.judge_leaks import advantage, auroc
from adversary.privacy import membership_label_only
from tests.adversary.evasion.oracles import over
from tests.adversary.privacy.victims import MEMBERS, learned, task

OPTIONS = {
    "membership-confidence": {"budget": 1},
    "membership-shadow": {"budget": 1, "count": 2},
    "membership-label-only": {"budget": 26, "known": 250},
}
LEAST = {"membership-confidence": 0.77, "membership-shadow": 0.73, "membership-label-only": 0.71}
every = pytest.mark.parametrize("name", sorted(OPTIONS))
TASK = task()


def run(name, oracle, x=TASK.x, y=TASK.y, *, seed=0, epochs=60, **options):
    rng = np.random.default_rng(seed)
    return CATALOGUE[name].function(oracle, x, y, rng=rng, epochs=epochs, **TASK.own, **{**OPTIONS[name], **options})


@pytest.fixture(scope="module")
def remembers():
    return learned(TASK.x[:MEMBERS], TASK.y[:MEMBERS])


@pytest.fixture(scope="module")
def stranger():
    """The same network and task; the candidates are new to it."""
    return learned(TASK.other_x, TASK.other_y)


@every
def test_members_are_told_from_outsiders_unless_nobody_is_one(name, remembers, stranger):
    scores = run(name, over(remembers)).scores
    assert auroc(scores[:MEMBERS], scores[MEMBERS:]) > LEAST[name]
    assert advantage(scores[:MEMBERS], scores[MEMBERS:]) > 0.3
    control = run(name, over(stranger)).scores
    assert abs(auroc(control[:MEMBERS], control[MEMBERS:]) - 0.5) < 0.08
    assert abs(advantage(control[:MEMBERS], control[MEMBERS:])) < 0.1


@every
def test_every_candidate_costs_its_budget_and_no_more(name, remembers):
    oracle = over(remembers)
    before = TASK.x.copy()
    guesses = run(name, oracle, TASK.x[:70], TASK.y[:70], epochs=1)
    assert guesses.queries.tolist() == [OPTIONS[name]["budget"]] * 70
    assert oracle.sent == guesses.queries.sum()
    assert max(oracle.calls) <= 64
    assert guesses.scores.shape == (70,)
    assert np.array_equal(TASK.x, before)


@every
def test_the_seed_decides_everything(name, remembers):
    first, again, other = (
        run(name, over(remembers), TASK.x[:20], TASK.y[:20], epochs=1, seed=seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)


@every
def test_an_endpoint_that_never_answers_gives_every_candidate_the_neutral_score(name, remembers):
    oracle = over(remembers, refuse=lambda sent, x: True)
    guesses = run(name, oracle, TASK.x[:20], TASK.y[:20], epochs=1)
    assert guesses.scores.tolist() == [0.0] * 20
    assert guesses.queries.sum() == oracle.sent


@every
def test_who_is_refused_gets_the_neutral_score_and_others_the_same_as_ever(name, remembers):
    x, y = TASK.x[:6], TASK.y[:6]
    budget = OPTIONS[name]["budget"]
    refusing = over(remembers, refuse=lambda sent, _: sent // budget in {1, 4})  # one call a candidate
    options = {"epochs": 1, **({"batch": 1} if budget == 1 else {})}
    scores, answered = (run(name, oracle, x, y, **options).scores for oracle in (refusing, over(remembers)))
    assert scores[[1, 4]].tolist() == [0.0, 0.0]
    rest = [0, 2, 3, 5]
    assert np.allclose(scores[rest], answered[rest], atol=1e-9)
    assert answered.all()


@every
def test_no_budget_no_attack(name, remembers):
    with pytest.raises(ValueError, match="costs one query"):
        run(name, over(remembers), budget=0)


@every
def test_the_catalogue_knows_what_it_sees(name):
    entry = CATALOGUE[name]
    assert entry.goal == "membership"
    assert entry.access == ("labels" if "label" in name else "scores")
    assert {"own_x", "own_y", "budget", "rng"} <= set(inspect.signature(entry.function).parameters)
    assert "eps" not in inspect.signature(entry.function).parameters


def test_the_gap_attack_is_a_budget_of_one(remembers):
    """Who is answered rightly is a member, the rest is not (Yeom et al. 2018)."""
    scores = run("membership-label-only", over(remembers), budget=1).scores
    assert np.array_equal(scores > 0.0, over(remembers).labels(TASK.x) == TASK.y)


def test_the_copies_of_a_candidate_by_hand():
    image = np.random.default_rng(0).uniform(size=(3, 16, 16)).astype(np.float32)
    made = membership_label_only.copies(image, 50, np.random.default_rng(1))
    assert made.shape == (50, 3, 16, 16)
    assert np.allclose(made[0], image)
    assert np.allclose(made[1], image[..., ::-1])
    moved = {tuple(shift): np.roll(image, shift, (1, 2)) for shift in ((-2, 0), (1, -1), (0, 2))}
    assert all(any(np.allclose(copy, other) for copy in made[2:14]) for other in moved.values())
    assert all(0.01 < np.abs(turned - image).mean() < 0.4 for turned in made[14:18])
    spread = [np.abs(noisy - image).mean() for noisy in made[18:]]
    assert np.allclose(np.divide(spread[:4], spread[0]), np.divide([0.04, 0.07, 0.1, 0.15], 0.04), rtol=0.25)
    assert made.min() >= 0.0
    assert made.max() <= 1.0
    last = membership_label_only.copies(np.moveaxis(image, 0, 2), 50, np.random.default_rng(1))
    assert np.allclose(last[:18], np.moveaxis(made[:18], 1, 3), atol=1e-6)
    assert len(membership_label_only.copies(image, 5, np.random.default_rng(1))) == 5


def test_what_the_answers_to_copies_come_to_by_hand():
    told = np.ones(26)
    told[2], told[5], told[18:] = np.nan, 0.0, [1, 0, 1, 0, 0, 0, np.nan, np.nan]
    expected = np.ones(22)
    expected[2], expected[5], expected[18:] = 0.5, 0.0, [0.5, 0.0, 1.0, 0.0]
    assert membership_label_only.features(told).tolist() == expected.tolist()
    told[[21, 25]] = np.nan  # nothing is known of the strongest noise
    assert membership_label_only.features(told)[-1] == 0.5
    assert membership_label_only.features(np.ones(3)).tolist() == [1.0, 1.0, 1.0]
