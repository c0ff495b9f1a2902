"""Output protections that learn, from `guard fit` through a profile on disk to the engine that serves with them."""

import numpy as np
import pytest

from guard import fit
from guard.engine import Engine
from guard.fit_clean import Clean, FitError
from guard.fit_stages import Wanted
from guard.profile import ProfileError, load_profile, save_profile
from guard.settings import Model
from guard.types import Answer, Query, TensorSpec
from tests.fit_world import Pretended, clean_images, logits_of, quadrants_onnx
from tests.test_fit import fitted as command

SPEC = (TensorSpec("x", "FP32", (-1, 1, 8, 8)),)
LEARNING = ("modelguard", "membership_noise")


def served():
    return Pretended(SPEC, lambda arrays: {"y": logits_of(arrays["x"])})


def clean(count=200, seed=0):
    return Clean(arrays={"x": clean_images(count, seed)[:, None]})


def fitted(*stages, **values):
    return fit.fit(served(), clean(), fit.Options(stages=stages, **values)).profile


def engine_of(profile, stage, **options):
    outputs = [{"stage": stage, "when": "always", "options": options}]
    return Engine(Model(name="m", profile="p", mode="enforce", outputs=outputs), profile, b"a secret of many bytes")


@pytest.mark.parametrize("stage", LEARNING)
def test_from_clean_inputs_to_answers(tmp_path, stage):
    save_profile(fitted(Wanted("output", stage)), tmp_path)
    profile = load_profile(tmp_path)
    assert list(profile.stages) == [f"output/{stage}"]
    assert profile.notes["learned_rows"] > 0
    engine = engine_of(profile, stage)
    x = clean_images(40, seed=5)[:, None]
    y = logits_of(x).astype(np.float32)
    query = engine.admit(Query(x, "alice", "m", "1"))
    result = engine.conclude(engine.decide(query, None, ()), Answer(y))
    assert result.findings == ()
    assert result.y.dtype == y.dtype
    np.testing.assert_array_equal(result.y.argmax(axis=1), y.argmax(axis=1))
    odds = [np.exp(logits - logits.max(axis=1, keepdims=True)) for logits in (y, result.y)]
    told = [row / row.sum(axis=1, keepdims=True) for row in odds]
    assert (np.abs(told[1] - told[0]).sum(axis=1) > 1e-4).mean() > 0.5


@pytest.mark.parametrize(("stage", "other"), [LEARNING, LEARNING[::-1]])
def test_without_a_fit_or_with_another_it_is_refused(stage, other):
    with pytest.raises(ProfileError, match=f"nothing for output '{stage}'"):
        engine_of(fitted(Wanted("output", other)), stage)
    with pytest.raises(ProfileError, match="was fitted with"):
        engine_of(fitted(Wanted("output", stage, {"eps": 0.3})), stage)


def test_a_refresh_keeps_what_was_learned():
    former = fitted(*(Wanted("output", stage) for stage in LEARNING))
    new = fit.fit(served(), clean(150, seed=9), fit.Options(refresh=former)).profile
    for key, known in former.stages.items():
        assert dict(new.stages[key].options) == dict(known.options)
        for name, array in known.arrays.items():
            np.testing.assert_array_equal(new.stages[key].arrays[name], array)


def test_what_does_not_learn_needs_no_fit():
    with pytest.raises(FitError, match="output/aaa: a stage such as this needs no fitting"):
        fitted(Wanted("output", "aaa"))
    engine_of(fitted(Wanted("monitor", "fingerprint")), "low_confidence_noise", sigma=0.2)


def test_labels_only_are_refused_with_words():
    model = Pretended(SPEC, lambda arrays: {"y": logits_of(arrays["x"]).argmax(axis=1)})
    for stage in LEARNING:
        with pytest.raises(FitError, match="labels only"):
            fit.fit(model, clean(), fit.Options(stages=(Wanted("output", stage),)))


def test_the_command_fits_what_the_settings_have(tmp_path):
    file = quadrants_onnx(tmp_path / "quadrants.onnx")
    np.save(tmp_path / "clean.npy", clean_images(200)[:, None])
    settings = tmp_path / "guard.yaml"
    settings.write_text(
        f"""
models:
  - name: quadrants
    embedded: {{file: {file}}}
    profile: {tmp_path / "profile"}
    mode: enforce
    outputs:
      - {{stage: aaa}}
      - {{stage: modelguard, when: always, options: {{eps: 0.4}}}}
"""
    )
    profile = command(tmp_path, "--model", file, "--clean", tmp_path / "clean.npy", "--config", settings)
    assert list(profile.stages) == ["output/modelguard"]
    (model,) = fit.config.load(settings).models
    assert [stage.name for stage in Engine(model, profile, b"a secret of many bytes").stages] == ["aaa", "modelguard"]
    told = ("--stage", "output/modelguard={eps: 0.4}")
    again = command(tmp_path, "--model", file, "--clean", tmp_path / "clean.npy", *told)
    np.testing.assert_array_equal(
        again.stages["output/modelguard"].arrays["centres"], profile.stages["output/modelguard"].arrays["centres"]
    )
