"""What honest callers pay: all of MNIST's clean test images through a Guard that enforces every stage at 0.01."""

import numpy as np
import pytest
import yaml

from adversary import processes as children
from adversary.attack import REFUSED
from adversary.data import mnist
from adversary.data.cache import DataUnavailable
from adversary.scores import rate
from adversary.victims.mnist import CHECKPOINT
from demo import measure, prepare, processes, verdicts
from demo.plan import FALSE_POSITIVE_RATE, Plan

pytestmark = pytest.mark.long
PLAN = Plan(victims=0, walkers=0, clean=10_000, callers=100)


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    try:
        data = mnist.load()
    except DataUnavailable as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("honest")
    images, env = prepare.part(data, PLAN), children.environment("a secret of the test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVERSARY_CACHE", str(directory))
        profile = prepare.profile(
            data, PLAN, CHECKPOINT, log=directory / "fit.log", env=env, tell=lambda done, note="": None
        )
    audit = directory / "audit.jsonl"
    (directory / "guard.yaml").write_text(yaml.safe_dump(processes.settings(CHECKPOINT, profile, audit)))
    with children.serving(directory / "guard.yaml", directory / "guard.log", env) as address:
        clean = measure.clean(address, images, PLAN, lambda done, note="": None)
    return images, clean, verdicts.read(audit)


def test_refusals_stay_within_the_budget(sent):
    _, clean, _ = sent
    refused = rate(clean.labels == REFUSED)
    assert refused.interval[0] <= FALSE_POSITIVE_RATE, str(refused)
    assert refused.hits > 0  # the stages do look


def test_no_benign_caller_is_flagged(sent):
    _, clean, said = sent
    assert not any(said[decision].caller_flagged for decision in clean.decisions)


def test_what_is_answered_is_answered_rightly(sent):
    images, clean, _ = sent
    answered = clean.labels != REFUSED
    assert np.mean(clean.labels[answered] == images.clean_y[answered]) >= 0.99
