"""What stages learn at `guard fit`: from which rows, with which networks, and what a refresh leaves alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

from guard import fit, learning
from guard.assembly import AMONG
from guard.engine import Engine
from guard.fit_clean import Clean, FitError
from guard.fit_learn import Given, learns_anything, material_of, wanted_networks
from guard.fit_measure import shadow
from guard.fit_stages import Chosen, Wanted, choose
from guard.fit_subject import Subject
from guard.profile import ProfileError, Space, load_profile, save_profile
from guard.settings import build_stage
from guard.types import Batching, TensorSpec
from tests import tiny_networks
from tests.fit_world import Pretended, clean_images, logits_of, quadrants_onnx
from tests.test_fit import fitted, refused

SPEC = (TensorSpec("x", "FP32", (-1, 1, 8, 8)),)
PID = Wanted("detector", "pid")
MAGNET = Wanted("detector", "magnet_divergence")
STATISTICS = Wanted("detector", "input_statistics")


class Model(Pretended):
    """The quadrants by numpy."""

    def __init__(self, batching=Batching()):  # noqa: B008 - frozen
        super().__init__(SPEC, lambda arrays: {"y": logits_of(arrays["x"])})
        self._batching = batching

    def batching(self):
        return self._batching


def clean(count=400, seed=0):
    return Clean(arrays={"x": clean_images(count, seed)[:, None]})


def tiny(name):
    """A network of the quadrants' shape."""
    if name == "auxiliary":
        return tiny_networks.auxiliary((8, 8, 1), classes=4)
    return tiny_networks.towards_grey((8, 8, 1))


@pytest.fixture
def taught(monkeypatch):
    """Networks are tiny and trained in no time; what they were trained from is kept."""
    calls = []

    def train(name, material, raw, tell):
        calls.append((name, material, set(raw)))
        tell(f"training {name}", 1, 1)
        return tiny(name)

    monkeypatch.setattr(learning, "train", train)
    return calls


def options(*stages, **values):
    return fit.Options(stages=stages or None, false_positive_rate=0.05, **values)


class TestRows:
    def test_what_is_learned_from_calibrates_nothing(self, taught):
        result = fit.fit(Model(), clean(), options(PID))
        ((name, material, raw),) = taught
        assert (name, raw) == ("auxiliary", set())
        assert material.x.shape == (160, 8, 8, 1)
        np.testing.assert_allclose(material.probs.sum(axis=1), 1)
        assert result.profile.notes["learned_rows"] == 160
        assert result.profile.notes["calibration"] == 160
        assert result.profile.stages["detector/pid"].joint.shape == (160,)
        seen = {row.tobytes() for row in material.x}
        rng_rows = np.random.default_rng(0).permutation(400)
        calibrated = clean_images(400)[rng_rows[240:]]
        assert not seen & {row.tobytes() for row in calibrated}

    def test_inputs_of_its_own(self, taught):
        result = fit.fit(Model(), clean(), options(PID, learn=clean(90, seed=5)))
        assert taught[0][1].x.shape == (90, 8, 8, 1)
        assert result.profile.notes["learned_from"] == "inputs of its own"
        assert result.profile.notes["calibration"] == 320

    def test_nothing_to_learn_nothing_set_apart(self):
        result = fit.fit(Model(), clean(), options(Wanted("detector", "feature_squeezing")))
        assert result.profile.notes["calibration"] == 320
        assert "learned_rows" not in result.profile.notes

    def test_a_share_that_leaves_nothing(self):
        with pytest.raises(FitError, match="leave none to learn from, or none to calibrate with"):
            fit.fit(Model(), clean(3), options(STATISTICS, learn_share=0.01))

    def test_no_more_than_memory_takes(self, monkeypatch):
        monkeypatch.setattr("guard.fit_learn.MAX_MATERIAL_BYTES", 64 * 4 * 10)
        subject = Subject(
            Model(), "x", dict(clean(50).arrays), Space("nchw", (0.0,), (1.0,), certain=True), "y", "logits"
        )
        assert material_of(subject, np.arange(50), 4, 0, lambda *_: None).x.shape == (10, 8, 8, 1)
        labels = material_of(replace(subject, meaning="labels"), np.arange(50), 4, 0, lambda *_: None)
        assert labels.probs is None


class TestNetworks:
    def test_each_is_trained_once_and_in_order(self, taught):
        fit.fit(Model(), clean(), options(PID, Wanted("purifier", "learned_denoiser"), Wanted("detector", "kde")))
        assert [(name, raw) for name, _, raw in taught] == [("auxiliary", set()), ("denoiser", {"auxiliary"})]

    def test_those_given_are_not_trained(self, taught):
        given = Given({"autoencoder": tiny("autoencoder")})
        result = fit.fit(Model(), clean(), options(MAGNET, given=given))
        assert taught == []
        assert dict(result.profile.networks) == dict(given.networks)
        assert result.profile.notes["calibration"] == 320  # the stage itself learns nothing

    def test_a_backbone_becomes_the_auxiliary(self, taught, monkeypatch):
        adopted = []

        def adopt(raw, material, tell):
            adopted.append(raw)
            return tiny("auxiliary")

        monkeypatch.setattr(learning, "adopt_backbone", adopt)
        result = fit.fit(Model(), clean(), options(PID, given=Given(backbone=b"a backbone")))
        assert adopted == [b"a backbone"]
        assert taught == []
        assert set(result.profile.networks) == {"auxiliary"}

    def test_what_cannot_be_trained_is_told(self, monkeypatch):
        def train(*_):
            raise ValueError("too few rows")

        monkeypatch.setattr(learning, "train", train)
        with pytest.raises(FitError, match="the network 'auxiliary' cannot be trained: too few rows"):
            fit.fit(Model(), clean(), options(PID))

    def test_without_the_extra_it_is_told(self, monkeypatch):
        def train(*_):
            raise ImportError(name="torch")

        monkeypatch.setattr(learning, "train", train)
        with pytest.raises(FitError, match=r"needs the extra `fit` \(torch is not installed\)"):
            fit.fit(Model(), clean(), options(PID))

    def test_by_themselves_stages_neither_learn_nor_ask_much(self, taught):
        result = fit.fit(Model(), clean(), options())
        assert taught == []
        detectors = {key for key in result.profile.stages if key.startswith("detector/")}
        assert detectors == {"detector/feature_squeezing"}
        assert "monitor/fingerprint" in result.profile.stages
        assert all(set(stage.arrays) <= {AMONG} for stage in result.profile.stages.values())
        assert "--train auxiliary" in result.skipped["detector/pid"]
        assert "it learns from clean inputs" in result.skipped["detector/input_statistics"]
        assert "ask for it by --stage" in result.skipped["detector/strip"]

    def test_with_leave_to_learn_they_do(self, taught):
        result = fit.fit(Model(), clean(1200), options(train=("auxiliary",)))
        assert {"detector/pid", "detector/input_statistics", "detector/mahalanobis"} <= set(result.profile.stages)
        assert "detector/magnet_reconstruction" not in result.profile.stages
        assert [name for name, *_ in taught] == ["auxiliary"]

    def test_what_is_wanted(self):
        stages = [Chosen(MAGNET, build_stage("detector", "magnet_divergence", {}))]
        assert wanted_networks(stages, Given()) == ("autoencoder",)
        assert learns_anything(stages, Given())
        assert not learns_anything(stages, Given({"autoencoder": b""}))


class TestModelsThatMustNotBeAskedAgain:
    @pytest.mark.parametrize(
        ("batching", "words"), [(Batching(stateful=True), "sequence model"), (Batching(decoupled=True), "decoupled")]
    )
    def test_view_detectors_and_votes_are_refused(self, batching, words):
        for stage in (Wanted("detector", "feature_squeezing"), Wanted("detector", "scale_up")):
            with pytest.raises(FitError, match=f"cannot serve this model: .*{words}"):
                fit.fit(Model(batching), clean(), options(stage))
        result = fit.fit(Model(batching), clean(), options())
        assert words in result.skipped["detector/feature_squeezing"]
        assert fit.fit(Model(batching), clean(), options(STATISTICS)).profile.stages  # it asks nothing more


class TestTokens:
    """Rows of whole numbers: what changes values a little says no, what looks or remembers serves."""

    @staticmethod
    def served():
        def answer(arrays):
            x = arrays["x"].astype(np.float64)
            return {"y": np.stack([x[:, i::4].sum(axis=1) / 400 for i in range(4)], axis=1)}

        return Pretended((TensorSpec("x", "INT64", (-1, 16)),), answer)

    @staticmethod
    def tokens(count=400):
        return Clean(arrays={"x": np.random.default_rng(0).integers(0, 400, (count, 16))})

    def test_the_statistics_and_the_monitor_serve(self):
        result = fit.fit(self.served(), self.tokens(), options(STATISTICS, Wanted("monitor", "fingerprint")))
        assert set(result.profile.stages) == {"detector/input_statistics", "monitor/fingerprint"}

    @pytest.mark.parametrize(
        ("stage", "words"),
        [
            (
                Wanted("detector", "feature_squeezing", {"squeezers": ["bit_depth_4"]}),
                "whole numbers, such as token ids",
            ),
            (Wanted("detector", "strip"), "works on images"),
            (Wanted("detector", "feature_squeezing"), "works on images"),
            (Wanted("detector", "purified_answer", {"purifier": "bit_depth"}), "whole numbers"),
        ],
    )
    def test_others_are_refused_with_words(self, stage, words):
        with pytest.raises(FitError, match=words):
            fit.fit(self.served(), self.tokens(), options(stage))


class TestRefresh:
    def test_scores_are_new_and_the_rest_stays(self, taught, tmp_path):
        former = fit.fit(Model(), clean(), options(PID, STATISTICS, Wanted("monitor", "fingerprint"))).profile
        save_profile(former, tmp_path / "p")
        former = load_profile(tmp_path / "p")
        taught.clear()
        new = fit.fit(Model(), clean(300, seed=9), fit.Options(false_positive_rate=0.05, refresh=former)).profile
        assert taught == []
        assert dict(new.networks) == dict(former.networks)
        assert new.space == former.space
        for key, fit_ in former.stages.items():
            assert dict(new.stages[key].options) == dict(fit_.options)
            for name, array in fit_.arrays.items():
                if name != AMONG:
                    np.testing.assert_array_equal(new.stages[key].arrays[name], array)
        assert (
            former.stages["monitor/fingerprint"].arrays[AMONG],
            new.stages["monitor/fingerprint"].arrays[AMONG],
        ) == (
            [128.0],
            [192.0],
        )
        joint = new.stages["detector/pid"].joint
        assert joint.shape == (240,)
        assert not np.isin(joint, former.stages["detector/pid"].joint).all()

    def test_another_model_is_refused(self, taught):
        former = fit.fit(Model(), clean(), options(STATISTICS)).profile
        other = replace(former, metadata=replace(former.metadata, platform="another"))
        with pytest.raises(FitError, match="the profile was made for another model"):
            fit.fit(Model(), clean(), fit.Options(refresh=other))

    def test_inputs_of_another_size_are_refused(self, taught):
        former = fit.fit(Model(), clean(), options(STATISTICS)).profile
        small = Clean(arrays={"x": clean_images(50)[:, None, :4, :4]})
        with pytest.raises(FitError, match="take"):
            fit.fit(Model(), small, fit.Options(refresh=former))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return quadrants_onnx(tmp_path_factory.mktemp("model") / "quadrants.onnx")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "clean.npy"
    np.save(path, clean_images(500)[:, None])
    return path


class TestCommand:
    def test_train_and_refresh(self, tmp_path, file, inputs, capsys, taught):
        common = ("--model", file, "--clean", inputs, "--false-positive-rate", "0.05")
        stages = ("--stage", "detector/pid", "--stage", "purifier/magnet_reformer")
        profile = fitted(tmp_path, *common, *stages, "--learn", inputs, "--json")
        assert set(profile.networks) == {"auxiliary", "autoencoder"}
        document = json.loads(capsys.readouterr().out)
        assert set(document["networks"]) == {"auxiliary", "autoencoder"}
        assert document["stages"]["purifier/magnet_reformer"]["held_out"] is None
        taught.clear()
        again = fitted(tmp_path, *common, *stages, "--networks", tmp_path / "profile")
        assert taught == []
        assert dict(again.networks) == dict(profile.networks)
        refreshed = fitted(tmp_path, *common, "--refresh", tmp_path / "profile")
        assert set(refreshed.stages) == {"detector/pid", "purifier/magnet_reformer"}
        settings = shadow(refreshed, (), 0.05)
        assert Engine(settings, refreshed, b"secret").stages == ()

    def test_what_is_wrong_is_told(self, capsys, tmp_path, file, inputs):
        common = ("--model", file, "--clean", inputs)
        assert "has none of auxiliary.onnx" in refused(capsys, *common, "--networks", tmp_path)
        assert "cannot read" in refused(capsys, *common, "--backbone", tmp_path / "no.onnx")
        assert "give one of them" in refused(
            capsys, *common, "--stage", "detector/pid", "--refresh", tmp_path / "profile"
        )
        with pytest.raises(ProfileError):
            load_profile(tmp_path / "nowhere")


def test_choosing_says_what_is_lacking():
    subject = Subject(Model(), "x", dict(clean(9).arrays), Space("nchw", (0.0,), (1.0,), certain=True), "y", "logits")
    _, skipped = choose(None, subject, {"auxiliary"}, learning=True)
    assert "it needs the network 'autoencoder'" in skipped["detector/magnet_divergence"]
    assert "detector/pid" not in skipped
