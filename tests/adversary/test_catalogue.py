import inspect

import pytest

from adversary.catalogue import CATALOGUE


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_attack_keeps_the_signature_and_names_its_source(name):
    entry = CATALOGUE[name]
    function = entry.load()
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:3] == ["target", "x", "y"]
    keywords = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in keywords][:3] == ["eps", "budget", "rng"]
    assert all(p.default is not p.empty for p in keywords[3:])
    arxiv = entry.source.rpartition("arXiv:")[2]
    assert f"arXiv:{arxiv}" in inspect.getmodule(function).__doc__
    assert entry.budget >= 1
    assert entry.eps > 0
