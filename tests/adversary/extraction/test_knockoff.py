"""Copies from a pool: more of it agrees better, scores tell more than labels, and the policy draws what pays."""

import numpy as np
import pytest

from adversary.extraction import copycat, knockoff_adaptive, knockoff_random
from tests.adversary.evasion.oracles import over
from tests.adversary.extraction.copies import agreement, made


@pytest.fixture(scope="module")
def random_copies(victim, pool):
    return made(knockoff_random, over(victim), pool[0], budget=2000, epochs=8)


def test_agreement_grows_with_what_was_sent(random_copies, victim, unseen):
    sent, copies = random_copies
    assert sent == [250, 500, 1000, 2000]
    found = [agreement(copy, victim, unseen) for copy in copies]
    assert found[-1] > 0.93
    assert found[0] < found[-1]


def test_every_input_is_sent_once_at_most(victim, pool):
    seen = []

    class Watching:
        sent = 0  # nobody asks

        def probabilities(self, x):
            seen.extend(row.tobytes() for row in x)
            return np.full((len(x), 10), 0.1)

    made(knockoff_random, Watching(), pool[0][:300], budget=1000, epochs=1)
    assert len(seen) == len(set(seen)) == 300


def test_labels_are_enough_and_tell_less(random_copies, victim, pool, unseen):
    oracle = over(victim)
    _, copies = made(copycat, oracle, pool[0], budget=2000, epochs=8)
    assert agreement(copies[-1], victim, unseen) > 0.9
    _, few = made(knockoff_random, over(victim), pool[0], budget=2000, epochs=8, answers="labels")
    assert np.array_equal(few[-1](unseen), copies[-1](unseen))  # on one pool the two are the same attack


def test_the_adaptive_policy_copies_as_well(victim, pool, unseen):
    x, y = pool
    _, copies = made(knockoff_adaptive, over(victim), x, y, budget=2000, epochs=8)
    assert agreement(copies[-1], victim, unseen) > 0.9
