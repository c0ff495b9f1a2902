"""An attacker who asks again and again, and averages, learns from keyed protections what one answer says, and no more.

His best guess is the mean or the median of the answers, whichever comes nearer to the model's own over all rows. The
control draws the same noise anew for every query, as the published methods do: there it is averaged away.
"""

import numpy as np
import pytest

from guard import registry
from guard.equipping import equip, learner_of
from guard.profile import stage_key
from guard.settings import build_stage
from guard.types import KeyedOutput, Material
from tests.outputs.attackers import CLASSES, SIDE, Model
from tests.outputs.worlds import SECRET, every, l1, softmax

registry.load()

REPEATS, ROWS = 1000, 12
WITHIN, BEYOND = 0.03, 0.1  # of a cell, which reaches 1/30 to each side of its middle
OPTIONS = {
    "low_confidence_noise": {"sigma": 0.5, "threshold": 1.0},
    "adaptive_misinformation": {"delta": 0.9, "slope": 10.0},
    "membership_noise": {"eps": 0.2},
}


def served(x):
    """A model that is unsure of much."""
    return softmax(0.35 * np.log(Model()(x)))


def inputs(n, seed=1):
    """In the middle of their cells."""
    return (np.random.default_rng(seed).integers(1, 15, (n, SIDE, SIDE, 1)) / 15).astype(np.float32)


def protection(name, secret=SECRET):
    stage = build_stage("output", name, OPTIONS.get(name, {}))
    learn = learner_of(stage)
    x = inputs(300, seed=5)
    arrays = {} if learn is None else learn(Material(x, served(x), CLASSES, seed=2))
    return equip(stage, stage_key("output", name), {}, arrays, secret)


def keyed_protections():
    return [name for name in registry.names("output") if isinstance(protection(name), KeyedOutput)]


def answers(stage, x, jitter, *, anew):
    """(REPEATS, ROWS, C) answers to the rows, each time a little moved."""
    rng, told = np.random.default_rng(3), []
    for i in range(REPEATS):
        asked = np.clip(x + rng.uniform(-jitter, jitter, x.shape), 0, 1).astype(np.float32)
        use = protection_anew(stage, i) if anew else stage
        told.append(use.protect_keyed(asked, served(asked), every(len(x))))
    return np.array(told)


def protection_anew(stage, i):
    """The same stage under another secret."""
    values = {key: getattr(stage, key) for key in stage.__dataclass_fields__} | {"secret": i.to_bytes(32, "big")}
    return type(stage)(**values)


def best_guess(told, truth):
    """(ROWS,) L1 errors of the better of two ways to put many answers together."""
    ways = [told.mean(axis=0), np.median(told, axis=0)]
    errors = [l1(way / way.sum(axis=1, keepdims=True), truth) for way in ways]
    return min(errors, key=np.mean)


def test_there_are_keyed_protections():
    assert {"low_confidence_noise", "adaptive_misinformation", "membership_noise"} <= set(keyed_protections())


@pytest.mark.parametrize("name", keyed_protections())
@pytest.mark.parametrize("jitter", [0.0, WITHIN])
def test_repeats_average_to_nothing_new(name, jitter):
    x, stage = inputs(ROWS), protection(name)
    truth = served(x)
    once = l1(stage.protect_keyed(x, truth, every(ROWS)), truth)
    told = answers(stage, x, jitter, anew=False)
    assert once.mean() > 0.03
    if jitter == 0:
        assert (told == told[0]).all()
    assert best_guess(told, truth).mean() > 0.85 * once.mean()
    anew = answers(stage, x, jitter, anew=True)
    drawn = np.mean([l1(one, truth).mean() for one in anew])
    assert best_guess(anew, truth).mean() < 0.75 * drawn  # the control


@pytest.mark.parametrize("name", keyed_protections())
def test_inputs_beyond_a_cell_are_averaged(name):
    """The bypass that the docs name: what an attacker may move further, he may average."""
    x, stage = inputs(ROWS), protection(name)
    truth = served(x)
    once = l1(stage.protect_keyed(x, truth, every(ROWS)), truth).mean()
    assert best_guess(answers(stage, x, BEYOND, anew=False), truth).mean() < 0.8 * once
