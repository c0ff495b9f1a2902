"""Which stages are fitted, and their scores of clean rows, against the same computed by hand."""

import asyncio
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import pytest
from scipy.special import softmax

from guard import registry
from guard.detectors.feature_squeezing import FeatureSqueezing
from guard.fit_clean import FitError
from guard.fit_learn import Given, put_to_work
from guard.fit_monitors import at_once
from guard.fit_stages import SECRET, Chosen, Wanted, calibrate, check_count, choose
from guard.fit_subject import Subject
from guard.monitors.fingerprint import Fingerprint
from guard.profile import Space
from guard.settings import ConfigError
from guard.sketching import Sketcher
from guard.types import Array, TensorSpec
from tests.fit_world import Pretended, clean_images, logits_of

HOW = {"sketcher": Sketcher(SECRET), "classes": 3}


@dataclass(frozen=True)
class Brightness:
    """A detector for these tests."""

    channels: Literal[1, 3] = 1

    def score(self, x: Array) -> Array:
        if x.ndim == 4 and x.shape[-1] != self.channels:
            raise ValueError(f"needs {self.channels} channels")
        return x.reshape(len(x), -1).mean(axis=1)


@pytest.fixture(autouse=True)
def brightness(monkeypatch):
    registry.load()
    monkeypatch.setattr(registry, "_stages", registry._stages | {("detector", "brightness"): Brightness})


GREY = Space("nchw", (0.0,), (1.0,), certain=True)
VECTOR = Space("vector", (0.0,), (1.0,), certain=False)
SPEC = (TensorSpec("x", "FP32", (-1, 1, 8, 8)),)


def subject(count=40, *, space=GREY, meaning="logits", bounds=1.0):
    x = clean_images(count)
    x = (x.reshape(count, 64) if space is VECTOR else x[:, None]) * np.float32(bounds)
    served = Pretended(SPEC, lambda arrays: {"y": logits_of(arrays["x"] / np.float32(bounds))})
    return Subject(served, "x", {"x": x}, space, "y", meaning), served


def quiet(*_):
    return None


def fitting(wanted, of):
    """The stage, chosen and at work."""
    chosen, _ = choose([wanted], of, ())
    return put_to_work(of, chosen, {}, Given(), None, np.array([0]))[0]


class TestChoice:
    def test_every_stage_that_suits(self):
        chosen, skipped = choose(None, subject()[0], ())
        keys = [stage.wanted.key for stage in chosen]
        assert {"detector/brightness", "detector/feature_squeezing", "monitor/fingerprint"} <= set(keys)
        assert not {key for key in keys if key.startswith(("purifier", "output"))}
        assert not set(keys) & set(skipped)

    def test_what_does_not_suit_is_left_out_with_words(self):
        chosen, skipped = choose(None, subject(space=VECTOR)[0], ())
        assert "works on images" in skipped["detector/feature_squeezing"]
        assert "monitor/fingerprint" in [stage.wanted.key for stage in chosen]
        of = subject(meaning="labels")[0]
        chosen, _ = choose(None, of, ())
        working, skipped = put_to_work(of, chosen, {}, Given(), None, np.array([0]))
        assert "labels only" in skipped["detector/feature_squeezing"]
        assert "monitor/fingerprint" in [stage.wanted.key for stage in working]

    def test_what_does_not_suit_is_refused_where_it_is_asked_for(self):
        for wanted, of, words in (
            (Wanted("detector", "feature_squeezing"), subject(space=VECTOR), "works on images"),
            (Wanted("detector", "feature_squeezing"), subject(meaning="labels"), "labels only"),
            (Wanted("detector", "brightness", {"channels": 3}), subject(), "needs 3 channels"),
        ):
            with pytest.raises(FitError, match=f"cannot serve this model: .*{words}"):
                fitting(wanted, of[0])

    def test_options_are_checked(self):
        (chosen,), _ = choose([Wanted("monitor", "fingerprint", {"explained": 0.2})], subject()[0], ())
        assert chosen.impl == Fingerprint(explained=0.2)
        with pytest.raises(ConfigError, match=r"options\.explains: unknown option"):
            choose([Wanted("monitor", "fingerprint", {"explains": 0.2})], subject()[0], ())
        with pytest.raises(ConfigError, match="no detector is called 'nobody'"):
            choose([Wanted("detector", "nobody")], subject()[0], ())

    def test_twice_or_of_another_kind(self):
        with pytest.raises(FitError, match="asked for twice"):
            choose([Wanted("monitor", "fingerprint")] * 2, subject()[0], ())
        with pytest.raises(FitError, match="purifier/median: a stage such as this needs no fitting"):
            choose([Wanted("purifier", "median")], subject()[0], ())


class TestCount:
    @staticmethod
    def of(*weights):
        return [Chosen(Wanted("detector", str(i), weight=w), None) for i, w in enumerate(weights)]

    def test_one_detector_needs_one_over_the_rate_less_one(self):
        check_count(self.of(1.0), 99, 0.01)
        with pytest.raises(FitError, match=r"98 .* are too few .* give at least 99, or a rate of at least 0\.01"):
            check_count(self.of(1.0), 98, 0.01)

    def test_shares_need_more(self):
        check_count(self.of(1.0, 1.0), 299, 0.01)
        with pytest.raises(FitError, match=r"2 detector.* give at least 299"):
            check_count(self.of(1.0, 1.0), 298, 0.01)
        with pytest.raises(FitError, match="give at least 499"):
            check_count(self.of(1.0, 3.0), 498, 0.01)

    def test_monitors_need_none(self):
        check_count([Chosen(Wanted("monitor", "m"), None)], 1, 0.01)
        check_count([], 1, 0.01)


class TestScores:
    def test_a_detectors_are_of_the_unit_form(self):
        of, served = subject(bounds=255.0, space=Space("nchw", (0.0,), (255.0,), certain=True))
        chosen = fitting(Wanted("detector", "brightness"), of)
        rows = np.array([3, 0, 7])
        scores = calibrate(of, chosen, rows, quiet, **HOW)["detector/brightness"]
        np.testing.assert_allclose(scores, clean_images(40)[rows].mean(axis=(1, 2)), rtol=1e-5)
        assert served.rows == 0  # nobody compares answers, so nobody asked

    def test_a_view_detectors_are_of_the_models_answers(self):
        of, served = subject(300)
        chosen = fitting(Wanted("detector", "feature_squeezing"), of)
        told = []
        rows = np.arange(299, -1, -1)
        scores = calibrate(of, chosen, rows, lambda *news: told.append(news), **HOW)["detector/feature_squeezing"]
        x = clean_images(300)[::-1][..., None]
        views = FeatureSqueezing().views(x)
        probs, *seen = (softmax(logits_of(form), axis=1) for form in (x, *views))
        wanted = np.max([np.abs(probs - view).sum(axis=1) for view in seen], axis=0)
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
        assert wanted.std() > 0.001
        assert served.rows == 3 * 300
        assert told == [("calibrating", done, 300) for done in (0, 128, 256, 300)]

    def test_encoded_images_are_sent_as_they_are_and_views_in_their_format(self):
        x = (clean_images(6) * 255).astype(np.uint8)
        kinds = [".png", ".jpg"] * 3
        files = np.array(
            [cv2.imencode(kind, image)[1].tobytes() for kind, image in zip(kinds, x, strict=True)], dtype=object
        )
        sent = []

        def answer(arrays):
            sent.append(arrays["x"])
            grey = [cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_GRAYSCALE) for f in arrays["x"].ravel()]
            return {"y": logits_of(np.stack(grey) / 255)}

        served = Pretended((TensorSpec("x", "BYTES", (-1, 1)),), answer)
        space = Space("encoded", (0.0,), (255.0,), certain=True, image_shape=(8, 8, 1))
        of = Subject(served, "x", {"x": files[:, None]}, space, "y", "logits")
        chosen = fitting(Wanted("detector", "feature_squeezing", {"squeezers": ["bit_depth_1"]}), of)
        scores = calibrate(of, chosen, np.arange(6), quiet, **HOW)["detector/feature_squeezing"]
        original, view = sent
        assert original.ravel().tolist() == files.tolist()
        assert [f[:3] for f in view.ravel()] == [f[:3] for f in files]
        assert view.shape == (6, 1)
        squeezed = cv2.imdecode(np.frombuffer(view[0, 0], np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(squeezed, np.rint(x[0] / 255) * 255)
        gap = softmax(logits_of(x[:1] / 255), axis=1) - softmax(logits_of(squeezed[None] / 255), axis=1)
        np.testing.assert_allclose(scores[0], np.abs(gap).sum(), atol=1e-5)

    def test_answers_that_are_none(self):
        of, _ = subject()
        chosen = fitting(Wanted("detector", "feature_squeezing"), of)
        for y, words in (({"y": np.full((40, 4), np.nan)}, "finite"), ({"z": np.zeros((40, 4))}, "without output 'y'")):
            broken = Subject(Pretended(SPEC, lambda _, y=y: y), "x", of.inputs, GREY, "y", "logits")
            with pytest.raises(FitError, match=words):
                calibrate(broken, chosen, np.arange(40), quiet, **HOW)


def test_coroutines_that_wait_are_an_error():
    async def waits():
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="waits for something"):
        at_once(waits())
