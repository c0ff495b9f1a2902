"""Stages that would ask again are refused where asking again does harm."""

import pytest

from guard.fit_batching import refuse
from guard.types import Batching
from tests.proxy.world import Mean, Views


class Vote:
    def copies(self, x):
        return (x,)

    def vote(self, copy_probs):
        return copy_probs[0]


@pytest.mark.parametrize("impl", [Views(), Vote()])
def test_what_asks_again_is_refused(impl):
    assert "state of a sequence model" in refuse(impl, Batching(8, stateful=True))
    assert "decoupled" in refuse(impl, Batching(8, decoupled=True))
    assert [refuse(impl, batching) for batching in (Batching(), Batching(0), Batching(8))] == [None, None, None]


def test_what_looks_at_the_input_alone_serves_any_model():
    assert refuse(Mean(), Batching(0, stateful=True, decoupled=True)) is None
