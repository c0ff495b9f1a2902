"""Adaptive attacks through real gRPC, by the runner: refusals and callers as an endpoint sees them."""

import grpc
import numpy as np
import pytest

from adversary import runner
from adversary.catalogue import CATALOGUE
from adversary.oracle import Endpoint, Oracle
from tests.adversary.adaptive.defences import Similar
from tests.adversary.tiny import Tiny, serving

SIDE = 8
X = np.random.default_rng(0).uniform(0.4, 0.6, (2, 1, SIDE, SIDE)).astype(np.float32)
Y = np.array([0, 0])
CALLERS = tuple((("x-api-key", f"caller {i}"),) for i in range(6))


def checkers(x):
    """Class 1 where a chequered pattern of large fields shows up."""
    fields = np.indices((SIDE, SIDE)).sum(axis=0) // 4 % 2 * 2.0 - 1.0
    z = (x[:, 0] * fields).sum(axis=(1, 2)) - 8.0
    return np.stack([np.zeros(len(x)), z], axis=1)


def hunted(tiny, name, budget, victims=2, **options):
    endpoint = Endpoint(tiny.address, "tiny", identities=CALLERS, meaning="logits")
    with Oracle(endpoint, 10_000) as oracle:
        x, y = X[:victims], Y[:victims]
        return runner.hunt(CATALOGUE[name], oracle, x, y, eps=0.3, budget=budget, seed=0, **options)


@pytest.fixture
def tiny():
    with serving(Tiny(checkers, shape=(-1, 1, SIDE, SIDE))) as t:
        yield t


@pytest.mark.parametrize("name", ["oars-nes", "oars-square", "averaging-square", "interleave-square", "sybil-square"])
def test_succeeds_on_a_bare_endpoint(tiny, name):
    assert hunted(tiny, name, 900).success.tolist() == [True, True]


def test_oars_reaches_a_wrong_answer_behind_a_stateful_defence(tiny):
    similar = Similar(0.8)
    tiny.refuse = lambda x, n: grpc.StatusCode.PERMISSION_DENIED if similar(n, x) else None
    outcome = hunted(tiny, "oars-nes", 900, victims=1)
    assert (outcome.reached_at > 0).all()
    assert (outcome.detected_at > 0).all()
    assert not outcome.success.any()  # the judge's repetition is itself refused


def test_sybils_call_as_callers_of_their_own(tiny):
    outcome = hunted(tiny, "sybil-square", 60, identities=3)
    callers = [{record.identity for record in trail[:-1]} for trail in outcome.trails]
    assert callers == [{0, 1, 2}, {3, 4, 5}]
    assert [trail[-1].identity for trail in outcome.trails] == [0, 1]  # the judge asks as the victim's caller
