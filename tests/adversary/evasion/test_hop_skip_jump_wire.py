"""HopSkipJump against the real victim, served by a real `guard serve` in a process of its own."""

import numpy as np
import pytest

from adversary import runner
from adversary.catalogue import CATALOGUE
from adversary.oracle import Endpoint, Oracle
from adversary.victims.mnist import CHECKPOINT
from tests.servers import guard

SETTINGS = {"models": [{"name": "mnist", "embedded": {"file": str(CHECKPOINT)}}]}
BUDGET = 2000


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with guard.start(tmp_path_factory.mktemp("bare"), SETTINGS) as served:
        yield served.address


def hunt(address, prey, **options):
    x, y = prey[0][:5], prey[1][:5]
    with Oracle(Endpoint(address, "mnist"), len(x) * (BUDGET + 2)) as oracle:
        outcome = runner.hunt(
            CATALOGUE["hop-skip-jump"], oracle, x, y, eps=1e-6, budget=BUDGET, seed=0, batch=64, **options
        )
        return outcome, oracle


def test_comes_close_within_its_queries(address, prey):
    outcome, oracle = hunt(address, prey)
    wrong = outcome.adversarial != outcome.y
    assert wrong.all()
    assert np.median(outcome.l2) < 3.0
    assert (outcome.queries <= BUDGET).all()
    assert oracle.spent == outcome.queries.sum() + 2 * len(outcome.y)
    assert (outcome.detected_at == runner.NEVER).all()


def test_raw_and_typed_requests_walk_the_same_way(address, prey):
    x, y = prey[0][:1], prey[1][:1]
    walked = []
    for encoding in ("raw", "typed"):
        with Oracle(Endpoint(address, "mnist", encoding=encoding), 302) as oracle:
            entry = CATALOGUE["hop-skip-jump"]
            walked.append(runner.hunt(entry, oracle, x, y, eps=0.1, budget=300, seed=0).x_adv)
    assert np.array_equal(*walked)
