from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pytest
from pydantic import Field

from guard import filters, registry
from guard.detectors.purified_answer import PurifiedAnswer
from guard.profile import stage_options
from guard.settings import ConfigError, build_stage
from guard.types import Equipment, ViewDetector
from tests.detectors.fakes import fitted, network, share_above, softmax


@dataclass(frozen=True)
class Shift:
    """Subtracts what it learned, through a network, and a secret's first byte."""

    needs: ClassVar[tuple[str, ...]] = ("denoiser",)
    needs_images: ClassVar[bool] = True
    steps: Annotated[int, Field(ge=1, le=4)] = 1

    def learn(self, material):
        return {"mean": material.x.mean(axis=0)}

    def equip(self, equipment):
        @dataclass(frozen=True, eq=False)
        class Working:
            def purify(_, x):
                return np.clip(equipment.networks["denoiser"](x)["x"] - self.steps * equipment.arrays["mean"], 0, 1)

        return Working()


@dataclass(frozen=True)
class Voting:
    def copies(self, x):
        return (x,)

    def vote(self, copy_probs):
        return copy_probs[0]


@pytest.fixture(autouse=True)
def _purifiers(monkeypatch):
    registry.load()
    more = {("purifier", "shift"): Shift, ("purifier", "voting"): Voting}
    monkeypatch.setattr(registry, "_stages", {**registry._stages, **more})


def images(n, seed=0):
    return np.random.default_rng(seed).random((n, 6, 6, 1), dtype=np.float32)


def test_the_view_is_the_purified_input():
    stage = PurifiedAnswer("bit_depth", {"bits": 2}).equip(Equipment())
    assert isinstance(stage, ViewDetector)
    (view,) = stage.views(images(2))
    np.testing.assert_array_equal(view, filters.bit_depth(images(2), 2))


def test_divergences_by_hand():
    one, other = np.array([[0.75, 0.25]]), np.array([[0.25, 0.75]])
    by_hand = {"l1": 1.0, "js": (0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5))}
    for name, expected in by_hand.items():
        stage = PurifiedAnswer(divergence=name).equip(Equipment())
        np.testing.assert_allclose(stage.score_views(one, (other,)), [expected])
        np.testing.assert_allclose(stage.score_views(one, (one,)), [0.0], atol=1e-12)


def test_what_the_purifier_needs_and_learns_is_handed_through():
    plain, stage = PurifiedAnswer(), PurifiedAnswer("shift", {"steps": 2})
    assert (plain.needs, plain.needs_images, plain.learn) == ((), True, None)
    assert not PurifiedAnswer("bit_depth").needs_images
    assert (stage.needs, stage.needs_images) == (("denoiser",), True)
    x = np.full((4, 2, 2, 1), 0.25, np.float32)
    working = fitted(stage, x, networks={"denoiser": network(x=lambda x: x)})
    np.testing.assert_allclose(working.views(x + 0.5)[0], 0.75 - 2 * 0.25)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"purifier": "nothing"}, "no purifier is called 'nothing'"),
        ({"purifier": "voting"}, "votes over several copies"),
        ({"options": {"radius": 3}}, r"options\.radius: median has: size"),
        ({"options": {"size": 4}}, r"options\.size"),
        ({"purifier": "shift", "options": {"steps": 9}}, r"options\.steps"),
    ],
)
def test_refusals_come_with_the_settings(options, words):
    with pytest.raises(ConfigError, match=words):
        build_stage("detector", "purified_answer", options)


def test_options_survive_the_profile():
    stage = PurifiedAnswer("median", {"size": 5}, "js")
    assert build_stage("detector", "purified_answer", stage_options(stage)) == stage


def test_answers_to_spots_move_and_those_to_smooth_changes_do_not():
    w = np.random.default_rng(1).normal(size=36)
    model = lambda x: softmax(np.stack([-(x.reshape(len(x), -1) - 0.5) @ w, (x.reshape(len(x), -1) - 0.5) @ w], 1))
    stage = PurifiedAnswer("median").equip(Equipment())
    smooth = 0.3 + 0.4 * np.random.default_rng(2).random((200, 1, 1, 1)) * np.ones((200, 6, 6, 1))
    x = smooth.astype(np.float32)
    score = lambda rows: stage.score_views(model(rows), stage_views(rows))
    stage_views = lambda rows: tuple(model(view) for view in stage.views(rows))
    spots = x.copy()
    spots.reshape(200, -1)[:, np.argsort(np.abs(w))[-4:]] = 1.0
    assert share_above(score(spots), score(x)) > 0.95
    assert share_above(score(np.clip(x + 0.1, 0, 1)), score(x)) < 0.2
