import inspect

import pytest

from adversary.catalogue import CATALOGUE

FILLED_IN = {"own_x", "own_y", "classes"}  # by the runner


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_attack_keeps_the_signature_and_names_its_source(name):
    entry = CATALOGUE[name]
    function = entry.function
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:3] == ["target", "x", "y"]
    keywords = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    first = ["eps", "budget", "rng"] if entry.goal == "evasion" else ["budget", "rng"]
    assert [p.name for p in keywords][: len(first)] == first
    others = [p for p in keywords[len(first) :] if p.name not in FILLED_IN]
    assert all(p.default is not p.empty and p.name != "eps" for p in others)
    arxiv = entry.source.rpartition("arXiv:")[2]
    assert f"arXiv:{arxiv}" in inspect.getmodule(function).__doc__
    assert entry.budget >= 1
    assert (entry.eps > 0) == (entry.goal == "evasion")
