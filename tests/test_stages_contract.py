"""What every registered stage promises, whatever it does: run over the whole registry, defaults and forms of input."""

import dataclasses
import itertools

import numpy as np
import pydantic
import pytest

from guard import registry
from guard.profile import stage_options
from guard.settings import build_stage
from guard.types import Detector, History, Match, ViewDetector

registry.load()

SECRET = b"a secret of the contract test"
SUSPECT_WHAT_STAYS = ("strip", "scale_up")  # a trigger's answer does not move; an adversarial one does
FORMS = {"grey": (12, 12, 1), "colour": (16, 12, 3), "vector": (24,)}


def stages(kind):
    return [pytest.param(name, form, id=f"{name}-{form}") for name in registry.names(kind) for form in FORMS]


def rows(form, n=3, seed=0):
    x = np.random.default_rng(seed).random((n, *FORMS[form]), dtype=np.float32)
    x[1] = 0.0  # rows at the bounds
    x[2] = 1.0
    return x


def answers(n=3, classes=5, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), n)


def built(kind, name, form):
    """A stage with default options that takes this form, else a skip; what it refuses it refuses with words."""
    stage = build_stage(kind, name, {})
    x = rows(form)
    try:
        match kind:
            case "purifier":
                stage.purify(x)
            case "monitor":
                stage.sketch(x, SECRET)
            case "detector":
                stage.views(x) if isinstance(stage, ViewDetector) else stage.score(x)
        assert form != "vector" or not getattr(stage, "needs_images", False)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - the text is shown by `guard fit`
        assert form != "vector" or stage.needs_images
        pytest.skip(str(error))
    return stage


def one_by_one(use, *arrays):
    return [use(*(array[i : i + 1] for array in arrays)) for i in range(len(arrays[0]))]


def frozen(*arrays):
    for array in arrays:
        array.flags.writeable = False
    return arrays


def test_there_are_stages_of_every_kind():
    assert all(registry.names(kind) for kind in ("detector", "purifier", "monitor", "output"))


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in ("detector", "purifier", "monitor", "output") for n in registry.names(k)]
)
class TestEveryStage:
    def test_options_have_defaults_types_and_a_schema(self, kind, name):
        stage = build_stage(kind, name, {})
        assert stage == registry.lookup(kind, name)()
        schema = pydantic.TypeAdapter(type(stage)).json_schema()
        assert set(schema.get("properties", {})) == {field.name for field in dataclasses.fields(stage)}

    def test_options_survive_the_profile(self, kind, name):
        stage = build_stage(kind, name, {})
        assert build_stage(kind, name, stage_options(stage)) == stage

    def test_the_module_says_what_it_is(self, kind, name):
        module = __import__(registry.lookup(kind, name).__module__, fromlist=["_"])
        assert all(word in module.__doc__ for word in ("Source:", "Answers:", "Known bypass:", "Returns:", "Cost:"))

    def test_some_form_of_input_is_served(self, kind, name):
        if kind == "output":
            return
        served = []
        for form in FORMS:
            try:
                built(kind, name, form)
                served.append(form)
            except pytest.skip.Exception:
                continue
        assert served


@pytest.mark.parametrize(("name", "form"), stages("purifier"))
def test_purifiers(name, form):
    stage = built("purifier", name, form)
    (x,) = frozen(rows(form))
    before = x.copy()
    out = stage.purify(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.min() >= 0
    assert out.max() <= 1
    assert not np.shares_memory(out, x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(out, stage.purify(x))
    np.testing.assert_array_equal(out, np.concatenate(one_by_one(stage.purify, x)))
    assert stage.purify(x[:0]).shape == x[:0].shape


@pytest.mark.parametrize(("name", "form"), stages("detector"))
def test_detectors(name, form):
    stage = built("detector", name, form)
    if isinstance(stage, ViewDetector):
        check_views(stage, form)
    assert isinstance(stage, ViewDetector | Detector)
    if isinstance(stage, Detector):
        (x,) = frozen(rows(form))
        scores = stage.score(x)
        assert scores.shape == (len(x),)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores, stage.score(x))
        np.testing.assert_allclose(scores, np.concatenate(one_by_one(stage.score, x)), rtol=1e-5)


def check_views(stage, form):
    (x,) = frozen(rows(form))
    views = stage.views(x)
    assert views
    for i, view in enumerate(views):
        assert view.shape == x.shape
        assert view.dtype == x.dtype
        assert view.min() >= 0
        assert view.max() <= 1
        np.testing.assert_array_equal(view, stage.views(x)[i])
        np.testing.assert_array_equal(view, np.concatenate([one[i] for one in one_by_one(stage.views, x)]))
    probs, *others = frozen(*(answers(seed=i) for i in range(len(views) + 1)))
    scores = stage.score_views(probs, tuple(others))
    assert scores.shape == (len(probs),)
    assert np.isfinite(scores).all()
    alone = one_by_one(lambda p, *v: stage.score_views(p, v), probs, *others)
    np.testing.assert_array_equal(scores, np.concatenate(alone))
    unmoved = stage.score_views(probs, tuple(probs for _ in views))
    assert type(stage).__module__.endswith(SUSPECT_WHAT_STAYS) or (unmoved <= scores).all()


@pytest.mark.parametrize(("name", "form"), stages("monitor"))
def test_monitors(name, form):
    stage = built("monitor", name, form)
    (x,) = frozen(rows(form))
    sketches = stage.sketch(x, SECRET)
    assert len(sketches) == len(x)
    again = stage.sketch(x, SECRET) + tuple(itertools.chain(*one_by_one(lambda v: stage.sketch(v, SECRET), x)))
    for one, other in zip(sketches * 2, again, strict=True):
        assert one.digest == other.digest
        assert one.hashes.dtype == np.uint64
        assert one.hashes.size > 0
        np.testing.assert_array_equal(one.hashes, other.hashes)
    assert len({sketch.digest for sketch in sketches}) == len(x)
    new, seen, retry = (tuple(match for _ in x) for match in (Match(), Match(10**6), Match(10**6, duplicate=True)))
    scores = [stage.judge(sketches, History(matches)) for matches in (new, seen, retry)]
    assert all(s.shape == (len(x),) and np.isfinite(s).all() for s in scores)
    assert (scores[1] > scores[0]).all()
    assert (scores[2] <= scores[0]).all()
    assert stage.sketch(x[:0], SECRET) == ()


@pytest.mark.parametrize("name", registry.names("output"))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs(name, dtype):
    stage = build_stage("output", name, {})
    probs = answers(n=40, classes=7).astype(dtype)
    suspicion = np.arange(40) % 2 == 0
    before = probs.copy()
    frozen(probs, suspicion)
    out = stage.protect(probs, suspicion)
    assert out.shape == probs.shape
    assert out.dtype == probs.dtype
    np.testing.assert_array_equal(probs, before)
    np.testing.assert_array_equal(out[~suspicion], probs[~suspicion])
    np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-5)
    assert (out >= 0).all()
    np.testing.assert_array_equal(out.argmax(axis=1), probs.argmax(axis=1))
    assert not np.array_equal(out[suspicion], probs[suspicion])
    np.testing.assert_array_equal(out, stage.protect(probs, suspicion))
    np.testing.assert_array_equal(out, np.concatenate(one_by_one(stage.protect, probs, suspicion)))
    assert stage.protect(probs[:0], suspicion[:0]).shape == (0, 7)
