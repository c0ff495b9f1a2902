"""What every registered stage promises, whatever it does: run over the whole registry, defaults and forms of input."""

import contextlib
import dataclasses
import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import pydantic
import pytest

from guard import networks, registry
from guard.equipping import NETWORKS, equip, learner_of, needs_of
from guard.fit_monitors import kept_of, recent_of
from guard.learning import extraction_curve
from guard.learning._training import Pace
from guard.linking import links
from guard.profile import stage_key, stage_options
from guard.settings import build_stage
from guard.sketching import Sketcher
from guard.types import (
    AnswerDetector,
    AnswerMonitor,
    Detector,
    KeyedOutput,
    Match,
    Material,
    Monitor,
    Neighbour,
    Past,
    ViewDetector,
    VotingPurifier,
    WindowMonitor,
)
from tests import tiny_networks

registry.load()

SECRET = b"a secret of the contract test"
FORMS = {"grey": (12, 12, 1), "colour": (16, 12, 3), "vector": (24,)}
CLASSES = tiny_networks.CLASSES
LEARNED_FROM = 400  # rows
MOST_BYTES = 8 * 2**20  # of what one stage keeps in a profile


@functools.cache
def options(kind, name):
    """What a stage cannot do without."""
    if (kind, name) != ("purifier", "onnx_denoiser"):
        return {}
    file = Path(tempfile.mkdtemp()) / "denoiser.onnx"
    file.write_bytes(tiny_networks.towards_grey(("h", "w", "c")))
    return {"file": file, "layout": "NHWC"}


def stages(kind):
    return [pytest.param(name, form, id=f"{name}-{form}") for name in registry.names(kind) for form in FORMS]


def rows(form, n=3, seed=0):
    x = np.random.default_rng(seed).random((n, *FORMS[form]), dtype=np.float32)
    x[1] = 0.0  # rows at the bounds
    x[2] = 1.0
    return x


def answers(n=3, classes=CLASSES, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), n)


@functools.cache
def every_network(form):
    make = {"auxiliary": tiny_networks.auxiliary}
    return {name: networks.load(make.get(name, tiny_networks.towards_grey)(FORMS[form])) for name in NETWORKS}


@functools.cache
def material(form):
    """Uniform noise, and the answers of a model that is much like the auxiliary network."""
    x = np.random.default_rng(1).random((LEARNED_FROM, *FORMS[form]), dtype=np.float32)
    logits = every_network(form)["auxiliary"](x)["logits"].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    frozen(x, odds)
    probs, sketcher = odds / odds.sum(axis=1, keepdims=True), Sketcher(SECRET)
    return Material(x, probs, CLASSES, every_network(form), seed=3, positions=lambda unit: (sketcher.positions(unit),))


@contextlib.contextmanager
def hasty():
    """Students of the extraction budget learn for three steps: what they are worth is tested by itself."""
    with pytest.MonkeyPatch.context() as patch:
        pace = Pace(epochs=1, least=3, most=3, batch=32, rate=0.05)
        patch.setattr(extraction_curve, "pace", lambda _shape: pace)
        yield


@functools.cache
def working(kind, name, form):
    """A stage with default options, at work. Raises ValueError."""
    stage = build_stage(kind, name, options(kind, name))
    learn = learner_of(stage)
    with hasty():
        arrays = {} if learn is None else learn(material(form))
    return equip(stage, stage_key(kind, name), every_network(form), arrays, SECRET)


def built(kind, name, form):
    """A stage at work that takes this form, else a skip; what it refuses it refuses with words."""
    options_ = build_stage(kind, name, options(kind, name))
    x = rows(form)
    try:
        stage = working(kind, name, form)
        match kind, stage:
            case "purifier", VotingPurifier():
                stage.copies(x)
            case "purifier", _:
                stage.purify(x)
            case "monitor", _:
                judged(stage, seen(form))
            case "detector", ViewDetector():
                stage.views(x)
            case "detector", AnswerDetector():
                stage.score_answer(x, answers())
            case "detector", _:
                stage.score(x)
        assert form != "vector" or not getattr(options_, "needs_images", False)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - the text is shown by `guard fit`
        assert form != "vector" or options_.needs_images
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
        stage = build_stage(kind, name, options(kind, name))
        assert stage == registry.lookup(kind, name)(**options(kind, name))
        schema = pydantic.TypeAdapter(type(stage)).json_schema()
        assert set(schema.get("properties", {})) == {field.name for field in dataclasses.fields(stage)}

    def test_options_survive_the_profile(self, kind, name):
        stage = build_stage(kind, name, options(kind, name))
        assert build_stage(kind, name, stage_options(stage)) == stage

    def test_it_needs_networks_that_there_are(self, kind, name):
        stage = build_stage(kind, name, options(kind, name))
        assert set(needs_of(stage)) <= set(NETWORKS)
        assert not (needs_of(stage) or learner_of(stage)) or hasattr(stage, "equip")

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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (k, n)
        for k in ("detector", "purifier")
        for n in registry.names(k)
        if learner_of(build_stage(k, n, options(k, n)))
    ],
)
def test_what_is_learned(kind, name, form):
    built(kind, name, form)
    learn = learner_of(build_stage(kind, name, options(kind, name)))
    check_learned(learn(material(form)), learn(material(form)))


def check_learned(arrays, again):
    assert arrays
    assert set(arrays) == set(again)
    for key, array in arrays.items():
        assert array.dtype.kind in "fiub"
        assert np.isfinite(array).all()
        np.testing.assert_array_equal(array, again[key])
    assert sum(array.nbytes for array in arrays.values()) <= MOST_BYTES


@pytest.mark.parametrize(("name", "form"), stages("purifier"))
def test_purifiers(name, form):
    stage = built("purifier", name, form)
    (x,) = frozen(rows(form))
    if isinstance(stage, VotingPurifier):
        check_vote(stage, x)
        return
    before = x.copy()
    out = stage.purify(x)
    check_same_form(out, x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(out, stage.purify(x))
    np.testing.assert_allclose(out, np.concatenate(one_by_one(stage.purify, x)), rtol=1e-5, atol=1e-7)
    assert stage.purify(x[:0]).shape == x[:0].shape


def check_same_form(out, x):
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.min() >= 0
    assert out.max() <= 1
    assert not np.shares_memory(out, x)


def check_vote(stage, x):
    before = x.copy()
    copies = stage.copies(x)
    assert copies
    check_further_inputs(stage.copies, copies, x)
    np.testing.assert_array_equal(x, before)
    assert all(copy.shape == x[:0].shape for copy in stage.copies(x[:0]))
    probs = frozen(*(answers(seed=i) for i in range(len(copies))))
    voted = stage.vote(probs)
    assert voted.shape == probs[0].shape
    assert (voted >= 0).all()
    np.testing.assert_allclose(voted.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(voted, np.concatenate(one_by_one(lambda *p: stage.vote(p), *probs)), rtol=1e-5)
    agreed = stage.vote(tuple(probs[0] for _ in copies))
    np.testing.assert_array_equal(agreed.argmax(axis=1), probs[0].argmax(axis=1))


def check_further_inputs(make, made, x):
    again, alone = make(x), one_by_one(make, x)
    for i, one in enumerate(made):
        check_same_form(one, x)
        np.testing.assert_array_equal(one, again[i])
        np.testing.assert_allclose(one, np.concatenate([row[i] for row in alone]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "form"), stages("detector"))
def test_detectors(name, form):
    stage = built("detector", name, form)
    kinds = [kind for kind in (ViewDetector, AnswerDetector, Detector) if isinstance(stage, kind)]
    assert len(kinds) == 1
    (x, probs) = frozen(rows(form), answers())
    if kinds == [ViewDetector]:
        check_views(stage, x)
    elif kinds == [AnswerDetector]:
        check_scores(stage.score_answer, x, probs)
    else:
        check_scores(stage.score, x)


def check_scores(use, *arrays):
    before = [array.copy() for array in arrays]
    scores = use(*arrays)
    assert scores.shape == (len(arrays[0]),)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, use(*arrays))
    np.testing.assert_allclose(scores, np.concatenate(one_by_one(use, *arrays)), rtol=1e-5, atol=1e-6)
    for array, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)


def check_views(stage, x):
    views = stage.views(x)
    assert views
    check_further_inputs(stage.views, views, x)
    probs, *others = frozen(*(answers(seed=i) for i in range(len(views) + 1)))
    check_scores(lambda p, *v: stage.score_views(p, v), probs, *others)


def seen(form, *, duplicate=False, near=False):
    """Each row beside what came before it: nothing, itself, or a row with the same hashes that is not quite it."""
    sketches = Sketcher(SECRET, every_network(form)["auxiliary"])(rows(form))
    matches = [
        Match(sketch.hashes.size, duplicate=True, number=i)
        if duplicate
        else Match(sketch.hashes.size, number=i, neighbours=(neighbour(sketch, i),))
        if near
        else Match(number=i)
        for i, sketch in enumerate(sketches)
    ]
    return links(sketches, matches)


def neighbour(sketch, i):
    way = np.random.default_rng(i).standard_normal(sketch.position.shape).astype(np.float32)
    position = sketch.position + 0.01 * np.linalg.norm(sketch.position) * way / np.linalg.norm(way)
    return Neighbour(1000 + i, sketch.hashes.size, position, 1000 + i, 1, b"somebody")


def recent(form, count):
    sketches = Sketcher(SECRET, every_network(form)["auxiliary"])(material(form).x[:count])
    probs = material(form).probs[:count]
    return recent_of(kept_of(sketches, probs, range(count)))


def judged(stage, rows_, past=None):
    past = Past() if past is None else past
    if isinstance(stage, Monitor):
        return stage.judge(rows_, past)
    if isinstance(stage, AnswerMonitor):
        return stage.judge_answers(rows_, past, answers())
    assert isinstance(stage, WindowMonitor)
    return np.zeros(len(rows_))


@pytest.mark.parametrize(("name", "form"), stages("monitor"))
def test_monitors(name, form):
    stage = built("monitor", name, form)
    kinds = [kind for kind in (Monitor, AnswerMonitor, WindowMonitor) if isinstance(stage, kind)]
    assert len(kinds) == 1
    if kinds == [WindowMonitor]:
        assert 1 <= stage.window <= 256
        window = recent(form, stage.window)
        score = stage.judge_window(window)
        assert math.isfinite(score)
        assert score == stage.judge_window(window)
        return
    for past in (Past(), Past(rows=40, recent=recent(form, 40))):
        for some in (seen(form), seen(form, near=True), seen(form, duplicate=True)):
            scores = judged(stage, some, past)
            assert scores.shape == (len(some),)
            assert np.isfinite(scores).all()
            np.testing.assert_array_equal(scores, judged(stage, some, past))


@pytest.mark.parametrize("name", ["fingerprint", "similarity_graph"])
def test_near_repeats_are_more_suspicious_than_new_rows_and_exact_ones(name):
    stage = built("monitor", name, "grey")
    new, near, retry = (judged(stage, seen("grey", **how)) for how in ({}, {"near": True}, {"duplicate": True}))
    assert near[0] > new[0]
    assert (near[1:] == new[1:]).all()  # uniform images: what makes them near is brightness
    assert (retry <= new).all()


OUTPUT_CLASSES = (2, 10, 1000)
TOLERANCE = {np.float16: 0.02, np.float32: 1e-5, np.float64: 1e-9}  # of a row's sum
IDENTITIES = {("top_k", 2), ("low_confidence_noise", 2)}  # what a protection cannot but leave as it is


@functools.cache
def protection(name, classes):
    """A working output protection, and (x, probs) -> its answers with every row protected."""
    x = np.random.default_rng(1).random((LEARNED_FROM, 24), dtype=np.float32)
    stage = build_stage("output", name, {})
    learn = learner_of(stage)
    known = Material(*frozen(x, sharp(LEARNED_FROM, classes, seed=2)), classes, seed=3)
    return equip(stage, stage_key("output", name), {}, {} if learn is None else learn(known), SECRET)


def sharp(n, classes, seed=0):
    """Answers from unsure to sure, with equal classes at the top of one and no doubt at all in another."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), rng.integers(classes, size=n)] += rng.uniform(0, 12, n)
    odds = np.exp(logits)
    odds[0], odds[2] = 1.0, np.eye(classes)[classes // 2]
    return odds / odds.sum(axis=1, keepdims=True)


def protect(stage, x, probs, suspicion):
    """As the engine asks it."""
    if isinstance(stage, KeyedOutput):
        return stage.protect_keyed(x, probs, suspicion)
    return stage.protect(probs, suspicion)


def check_top(out, probs):
    """The argmax is what it was, the first of equals; and alone where it was."""
    top = probs.argmax(axis=1)
    np.testing.assert_array_equal(out.argmax(axis=1), top)
    alone = [(np.sort(answers, axis=1)[:, -2:] @ [-1, 1]) > 0 for answers in (out, probs)]
    assert alone[1].sum() > len(probs) / 2
    assert (alone[0] | ~alone[1]).all()


@pytest.mark.parametrize("name", registry.names("output"))
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("classes", OUTPUT_CLASSES)
def test_outputs(name, dtype, classes):
    use = functools.partial(protect, protection(name, classes))
    x, probs = rows("vector", 40), sharp(40, classes).astype(dtype)
    suspicion = np.arange(40) % 2 == 0
    before = [array.copy() for array in frozen(x, probs, suspicion)]
    out = use(x, probs, suspicion)
    assert out.shape == probs.shape
    assert out.dtype == probs.dtype
    assert not np.shares_memory(out, probs)
    for array, old in zip((x, probs, suspicion), before, strict=True):
        np.testing.assert_array_equal(array, old)
    np.testing.assert_array_equal(out[~suspicion], probs[~suspicion])
    np.testing.assert_allclose(out.astype(np.float64).sum(axis=1), 1, rtol=TOLERANCE[dtype])
    assert (out >= 0).all()
    check_top(out[suspicion], probs[suspicion])
    assert np.array_equal(out[suspicion], probs[suspicion]) == ((name, classes) in IDENTITIES)
    np.testing.assert_array_equal(out, use(x, probs, suspicion))
    np.testing.assert_array_equal(out[::-1], use(x[::-1], probs[::-1], suspicion[::-1]))
    np.testing.assert_array_equal(out, np.concatenate(one_by_one(use, x, probs, suspicion)))
    np.testing.assert_array_equal(use(x, probs, np.zeros(40, np.bool_)), probs)
    assert use(x[:0], probs[:0], suspicion[:0]).shape == (0, classes)


@pytest.mark.parametrize("name", [n for n in registry.names("output") if learner_of(build_stage("output", n, {}))])
@pytest.mark.parametrize("classes", OUTPUT_CLASSES)
def test_what_outputs_learn(name, classes):
    stage = build_stage("output", name, {})
    x = np.zeros((LEARNED_FROM, 4), np.float32)
    known = Material(*frozen(x, sharp(LEARNED_FROM, classes, seed=2)), classes, seed=3)
    check_learned(stage.learn(known), stage.learn(known))
    with pytest.raises(ValueError, match="labels only"):
        stage.learn(dataclasses.replace(known, probs=None))
    with pytest.raises(ValueError, match=f"{classes} classes"):
        protect(protection(name, classes), x[:1], np.full((1, classes + 1), 1 / (classes + 1)), np.ones(1, np.bool_))


@pytest.mark.parametrize("name", registry.names("output"))
def test_an_only_class_stays_certain(name):
    out = protect(protection(name, 1), rows("vector"), np.ones((3, 1)), np.ones(3, np.bool_))
    np.testing.assert_array_equal(out, np.ones((3, 1)))
