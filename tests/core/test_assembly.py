"""Stages with their thresholds: one budget over all detectors, whatever they have to do with each other."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from guard.assembly import Cheap, Stage, assemble, capped
from guard.calibration import Calibration
from guard.profile import Profile, ProfileError
from guard.types import Mode
from tests.core.helpers import Centred, MeanDetector, Surprise, Taught, ViewGap, model_of, profile_of

pytestmark = pytest.mark.usefixtures("stages")

SECRET = b"a secret of sixteen bytes"
RNG = np.random.default_rng(0)
BOTH = [{"stage": "test_mean"}, {"stage": "test_surprise"}]


def detectors_of(profile: Profile, detectors: Any = BOTH, **values: Any) -> dict[str, Stage]:
    stages, _ = assemble(model_of(detectors=detectors, **values), profile, SECRET)
    return {stage.name: stage for stage in stages if stage.kind == "detector"}


def two(first: Any, second: Any, **values: Any) -> Profile:
    scores = {("detector", "test_mean"): (MeanDetector(), first), ("detector", "test_surprise"): (Surprise(), second)}
    return profile_of(scores, joint=True, **values)


def test_stages_that_see_the_same_have_the_whole_budget_each() -> None:
    same = RNG.random(999)
    stages = detectors_of(two(same, same))
    for stage in stages.values():
        assert 0.098 < stage.threshold <= 0.1


def test_stages_that_see_different_things_share_it() -> None:
    stages = detectors_of(two(RNG.random(999), RNG.random(999)))
    for stage in stages.values():
        assert stage.threshold == pytest.approx(0.0513, abs=0.008)  # 1 - (1 - t)^2 = 0.1


def test_without_scores_by_row_the_budget_is_split() -> None:
    scores = {
        ("detector", "test_mean"): (MeanDetector(), RNG.random(99)),
        ("detector", "test_surprise"): (Surprise(), RNG.random(99)),
    }
    assert {stage.threshold for stage in detectors_of(profile_of(scores)).values()} == {0.05}


def test_one_detector_has_the_budget_as_it_is() -> None:
    profile = two(RNG.random(99), RNG.random(99))
    assert detectors_of(profile, [BOTH[0], {**BOTH[1], "mode": "off"}])["test_mean"].threshold == 0.1


def test_weights_move_the_budget() -> None:
    stages = detectors_of(two(RNG.random(999), RNG.random(999)), [{**BOTH[0], "weight": 3.0}, BOTH[1]])
    assert stages["test_mean"].threshold == pytest.approx(3 * stages["test_surprise"].threshold)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["same", "apart", "opposed"])
def test_clean_rows_fire_at_the_budget_on_average_over_calibrations(kind: str, seed: int) -> None:
    """700 draws of 99 calibration rows and one row more: the budget of 10 % is kept and nearly used."""
    rng, fired, tries = np.random.default_rng(seed), 0, 700
    for _ in range(tries):
        first = rng.random(100)
        second = {"same": first, "apart": rng.random(100), "opposed": 1.0 - first}[kind]
        stages = detectors_of(two(first[:99], second[:99]))
        p_values = (
            (stages["test_mean"].calibration.p_values(first[99:])[0], first),
            (
                stages["test_surprise"].calibration.p_values(second[99:])[0],
                second,
            ),
        )
        thresholds = (stages["test_mean"].threshold, stages["test_surprise"].threshold)
        fired += any(p <= t for (p, _), t in zip(p_values, thresholds, strict=True))
    spread = 3 * np.sqrt(0.1 * 0.9 / tries)
    assert 0.07 - spread < fired / tries < 0.1 + spread


def test_a_rate_that_the_rows_cannot_show() -> None:
    with pytest.raises(ProfileError, match=r"can never fire.*fit with more"):
        detectors_of(two(RNG.random(8), RNG.random(8)))


def test_off_stages_are_checked_and_left_out() -> None:
    profile = two(RNG.random(99), RNG.random(99))
    with pytest.raises(ProfileError, match="works on images only"):
        detectors_of(profile, [*BOTH, {"stage": "test_images", "mode": "off"}])
    assert capped(Mode.ENFORCE, Mode.SHADOW) is Mode.SHADOW


class TestEscalation:
    DETECTORS: tuple[Any, ...] = ({"stage": "test_mean"}, {"stage": "test_views"})

    @staticmethod
    def profile(mean: Any, views: Any) -> Profile:
        scores = {("detector", "test_mean"): (MeanDetector(), mean), ("detector", "test_views"): (ViewGap(), views)}
        return profile_of(scores, joint=True)

    def cheap(self, **values: Any) -> tuple[dict[str, Stage], Cheap | None]:
        profile = self.profile(np.arange(999.0), np.random.default_rng(1).permutation(np.arange(999.0)))
        stages, cheap = assemble(model_of(detectors=self.DETECTORS, **values), profile, SECRET)
        return {stage.name: stage for stage in stages}, cheap

    def test_nobody_is_left_out_unless_it_is_asked_for(self) -> None:
        assert self.cheap()[1] is None
        profile = two(RNG.random(99), RNG.random(99))
        assert assemble(model_of(detectors=BOTH, escalate_below=0.1), profile, SECRET)[1] is None  # no views at all

    def test_the_stages_of_the_input_alone_decide(self) -> None:
        _, cheap = self.cheap(escalate_below=0.2)
        assert cheap is not None
        np.testing.assert_allclose(cheap.p_values(np.array([[0.2], [0.5]])), [0.2, 0.5], atol=0.005)

    def test_rows_that_are_not_asked_about_leave_more_budget(self) -> None:
        everyone, few = self.cheap()[0], self.cheap(escalate_below=0.2)[0]
        assert few["test_mean"].threshold > everyone["test_mean"].threshold * 1.3
        sampled = self.cheap(escalate_below=0.2, escalate_sample=0.1)[0]
        assert sampled["test_mean"].threshold == everyone["test_mean"].threshold

    def test_it_needs_who_decides_and_scores_by_row(self) -> None:
        scores = {("detector", "test_views"): (ViewGap(), RNG.random(99))}
        with pytest.raises(ProfileError, match="escalate_below needs a detector of the input alone"):
            assemble(model_of(detectors=[{"stage": "test_views"}], escalate_below=0.1), profile_of(scores), SECRET)
        scores |= {("detector", "test_mean"): (MeanDetector(), RNG.random(99))}
        with pytest.raises(ProfileError, match="escalate_below needs scores by row"):
            assemble(model_of(detectors=self.DETECTORS, escalate_below=0.1), profile_of(scores), SECRET)


class TestEquipped:
    CENTRED: tuple[Any, ...] = ({"stage": "test_centred"},)

    @staticmethod
    def profile(stage: Any, **values: Any) -> Profile:
        return profile_of({("detector", "test_centred"): (stage, RNG.random(99))}, **values)

    def test_a_stage_gets_what_it_learned_and_a_secret_of_its_own(self) -> None:
        profile = self.profile(Centred(), arrays={"detector/test_centred": {"centre": np.full(4, 0.5)}})
        stage = detectors_of(profile, self.CENTRED)["test_centred"]
        np.testing.assert_allclose(stage.impl.score(np.ones((1, 4))), [0.5])
        other, _ = assemble(model_of(detectors=self.CENTRED), profile, b"another secret")
        assert len(stage.impl.equipment.secret) == 32
        assert stage.impl.equipment.secret != other[0].impl.equipment.secret

    def test_what_it_cannot_work_with_is_told(self) -> None:
        with pytest.raises(ProfileError, match="'test_centred' does not work with this profile: there is no centre"):
            detectors_of(self.profile(Centred()), self.CENTRED)
        with pytest.raises(ProfileError, match="the profile has no network 'auxiliary'"):
            detectors_of(self.profile(Centred(network=True)), [{**self.CENTRED[0], "options": {"network": True}}])

    def test_it_gets_the_networks_that_it_needs(self) -> None:
        info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "logits")]
        graph = helper.make_graph([helper.make_node("Neg", ["x"], ["logits"])], "g", info[:1], info[1:])
        raw = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
        centre = {"detector/test_centred": {"centre": np.zeros(4)}}
        profile = self.profile(Centred(network=True), arrays=centre, networks={"auxiliary": raw, "denoiser": b"broken"})
        stage = detectors_of(profile, [{**self.CENTRED[0], "options": {"network": True}}])["test_centred"]
        networks = stage.impl.equipment.networks
        assert set(networks) == {"auxiliary"}
        np.testing.assert_array_equal(networks["auxiliary"](np.ones((2, 4), np.float32))["logits"], -np.ones((2, 4)))

    def test_purifiers_that_learned_are_looked_up_others_need_no_profile(self) -> None:
        taught = {("purifier", "test_taught"): (Taught(), None)}
        profile = profile_of(taught, arrays={"purifier/test_taught": {"centre": np.zeros(4)}})
        purifiers = [{"stage": "test_taught"}, {"stage": "test_halve"}]
        stages, _ = assemble(model_of(purifiers=purifiers), profile, SECRET)
        assert [stage.name for stage in stages] == ["test_taught", "test_halve"]
        assert stages[0].impl.purify(np.ones((1, 4))).tolist() == [[0.0] * 4]
        with pytest.raises(ProfileError, match="the profile has nothing for purifier 'test_taught'"):
            assemble(model_of(purifiers=purifiers), profile_of({}), SECRET)


def test_a_stage_without_calibration_does_not_score() -> None:
    broken = profile_of({("detector", "test_mean"): (MeanDetector(), None)})
    with pytest.raises(ProfileError, match="no calibration for detector 'test_mean'"):
        detectors_of(broken, BOTH[:1])
    assert Calibration.of(np.arange(4.0)).own_p_values(np.arange(4.0)) == pytest.approx([0.8, 0.6, 0.4, 0.2])
