"""One query, several stages on the same network: it runs once, whatever layout the model takes."""

import gc
import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from guard import networks
from guard.calibration import Calibration
from guard.engine import Engine
from guard.equipping import equip, learner_of
from guard.networks import Networks, OnnxNetwork
from guard.profile import Profile, Space, StageFit, stage_key, stage_options
from guard.settings import Model, build_stage
from guard.types import Answer, History, Match, Material, ModelMetadata, Query, TensorSpec
from tests import tiny_networks

SHAPE, CLASSES = (12, 10, 3), tiny_networks.CLASSES
SECRET = b"a secret of sixteen bytes"
RAW = {
    "auxiliary": tiny_networks.auxiliary(SHAPE),
    "autoencoder": tiny_networks.towards_grey(SHAPE),
    "denoiser": tiny_networks.towards_grey(SHAPE, 0.5),
}
DETECTORS = ("pid", "mahalanobis", "lid", "kde", "magnet_reconstruction", "magnet_divergence")
MONITORS = ("embedding_novelty", "embedding_neighbours")
LAYOUTS = {"nhwc": (-1, *SHAPE), "nchw": (-1, SHAPE[2], *SHAPE[:2])}


def profile_of(layout, stages):
    """Scores of clean rows are made up: this is about what runs, not about what fires."""
    rng = np.random.default_rng(0)
    x = rng.random((120, *SHAPE), dtype=np.float32)
    probs = rng.dirichlet(np.ones(CLASSES), len(x))
    loaded = {name: networks.load(raw) for name, raw in RAW.items()}
    material, fits = Material(x, probs, CLASSES, loaded), {}
    for kind, name, options in stages:
        stage = build_stage(kind, name, options)
        learn = learner_of(stage)
        arrays = {} if learn is None else learn(material)
        equip(stage, stage_key(kind, name), loaded, arrays, SECRET)
        scores = Calibration.of(rng.random(999)) if kind in {"detector", "monitor"} else None
        fits[stage_key(kind, name)] = StageFit(stage_options(stage), scores, arrays=arrays)
    metadata = ModelMetadata(
        "m", ("1",), "", (TensorSpec("x", "FP32", LAYOUTS[layout]),), (TensorSpec("y", "FP32", (-1, CLASSES)),)
    )
    space = Space(layout, (0.0,), (1.0,), certain=True)
    return Profile(metadata, "x", "FP32", space, "y", "probabilities", CLASSES, fits, networks=RAW)


def settings_of(stages, **values):
    """Every stage enforces."""
    lists = {"detector": "detectors", "monitor": "monitors", "purifier": "purifiers"}
    entries = {key: [] for key in lists.values()}
    for kind, name, options in stages:
        more = {"when": "always"} if kind == "purifier" else {}
        entries[lists[kind]].append({"stage": name, "options": options, **more})
    return Model.model_validate({"name": "m", "profile": "p", "mode": "enforce", **entries, **values})


@pytest.fixture
def runs(monkeypatch):
    """How many rows each network was run on, call by call."""
    found, plain = [], OnnxNetwork._run

    def counting(self, x):
        found.append((self.outputs, len(x)))
        return plain(self, x)

    monkeypatch.setattr(OnnxNetwork, "_run", counting)
    return found


def whole(engine, layout, rows=1, seed=1):
    """A query's whole way."""
    x = np.random.default_rng(seed).random((rows, *SHAPE), dtype=np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if layout == "nchw" else x
    query = engine.admit(Query(x, "peer:1", "m", "d1"))
    sketches = engine.sketch(query)
    decision = engine.decide(query, History(tuple(Match() for _ in sketches)), sketches)
    assert {finding.error for finding in decision.findings} <= {None}
    y = np.random.default_rng(seed).dirichlet(np.ones(CLASSES), rows)
    views = tuple(np.random.default_rng(seed + 1).dirichlet(np.ones(CLASSES), rows) for _ in decision.views)
    conclusion = engine.conclude(decision, Answer(y, views))
    assert {finding.error for finding in conclusion.findings} <= {None}
    return conclusion


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 3])
def test_detectors_and_monitors_share_a_pass(layout, rows, runs):
    stages = [("detector", name, {}) for name in DETECTORS] + [("monitor", name, {}) for name in MONITORS]
    policy = {"on_input": "allow", "on_hostile": "allow"}
    engine = Engine(settings_of(stages, policy=policy), profile_of(layout, stages), SECRET)
    runs.clear()
    whole(engine, layout, rows)
    assert sorted(Counter(runs).values()) == [1, 1]  # the auxiliary and the autoencoder
    assert {n for _, n in runs} == {rows}
    whole(engine, layout, rows, seed=2)
    assert sorted(Counter(runs).values()) == [2, 2]  # the control: other rows are another pass


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_purifier_and_the_detector_that_compares_with_it_share_a_pass(layout, runs):
    stages = [("detector", "purified_answer", {"purifier": "learned_denoiser"}), ("purifier", "learned_denoiser", {})]
    engine = Engine(settings_of(stages), profile_of(layout, stages), SECRET)
    runs.clear()
    whole(engine, layout)
    assert [n for _, n in runs] == [1]


@pytest.mark.parametrize("axes", ["NHWC", "NCHW"])
def test_so_do_two_with_a_file_of_their_own(axes, runs, tmp_path):
    file = tmp_path / "own.onnx"
    shape = SHAPE if axes == "NHWC" else (SHAPE[2], *SHAPE[:2])
    file.write_bytes(tiny_networks.towards_grey(shape, 0.3))
    options = {"file": file, "layout": axes}
    stages = [
        ("detector", "purified_answer", {"purifier": "onnx_denoiser", "options": options}),
        ("purifier", "onnx_denoiser", options),
    ]
    engine = Engine(settings_of(stages), profile_of("nhwc", stages), SECRET)
    runs.clear()
    whole(engine, "nhwc")
    assert [n for _, n in runs] == [1]


def test_engines_with_the_same_networks_share_them(tmp_path):
    stages = [("detector", "pid", {}), ("detector", "kde", {})]
    profile, shelf = profile_of("nhwc", stages), Networks()
    one, other = (Engine(settings_of(stages), profile, SECRET, shelf) for _ in range(2))
    mine = [stage.impl.auxiliary for stage in one.stages if stage.name == "pid"]
    theirs = [stage.impl.auxiliary for stage in other.stages if stage.name == "pid"]
    assert mine[0] is theirs[0]
    file = tmp_path / "a.onnx"
    file.write_bytes(RAW["auxiliary"])
    assert shelf.load(file) is mine[0]
    assert shelf.load(RAW["denoiser"]) is not mine[0]


def test_a_session_is_loaded_once_as_long_as_somebody_uses_it(tmp_path):
    raw = tiny_networks.auxiliary((5, 5, 1), seed=3)
    file = tmp_path / "a.onnx"
    file.write_bytes(raw)
    with ThreadPoolExecutor(4) as pool:
        one, *others = pool.map(networks.load, [raw, file, raw, file])
    assert all(other is not one and other._session is one._session for other in others)
    digest = hashlib.sha256(raw).digest()
    assert networks._sessions[digest] is one._session
    del one, others
    gc.collect()
    assert digest not in networks._sessions


def test_a_file_that_was_written_anew_is_another_network(tmp_path):
    file = tmp_path / "a.onnx"
    file.write_bytes(tiny_networks.towards_grey(SHAPE, 0.5))
    shelf, x = Networks(), np.ones((1, *SHAPE), np.float32)
    before = shelf.load(file)
    file.write_bytes(tiny_networks.towards_grey(SHAPE, 1.0))
    assert before(x)["x"].max() == pytest.approx(0.75)
    assert shelf.load(file)(x)["x"].max() == pytest.approx(0.5)


def test_a_file_with_weights_elsewhere_is_never_taken_for_another(tmp_path):
    import onnx

    made = onnx.load_from_string(tiny_networks.auxiliary(SHAPE))
    file, shelf = tmp_path / "a.onnx", Networks()
    onnx.save(made, file, save_as_external_data=True, location="weights", size_threshold=0)
    x = np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)
    before = shelf.load(file)(x)["logits"]
    weights = np.fromfile(tmp_path / "weights", np.float32)
    (weights * 2).tofile(tmp_path / "weights")
    assert np.abs(shelf.load(file)(x)["logits"] - before).max() > 0.1


def test_views_of_an_array_are_told_apart():
    network = networks.load(tiny_networks.towards_grey(("h", "w", "c")))
    x = np.random.default_rng(0).random((4, 6, 6, 6), dtype=np.float32)
    x.flags.writeable = False
    turned = [x, x[:2], x[2:], x[:, ::-1], x.transpose(0, 3, 1, 2), x.reshape(4, 4, 9, 6)]
    for one in turned:
        np.testing.assert_allclose(network(one)["x"], one * 0.75 + 0.125, rtol=1e-6)
        assert network(one) is network(one[...])
    assert len(network._said) == len(turned)
    del one, turned, x
    assert len(network._said) == 0


def test_a_read_only_view_of_what_may_be_written_is_no_promise():
    network, x = networks.load(tiny_networks.towards_grey(SHAPE)), np.zeros((1, *SHAPE), np.float32)
    view = x[...]
    view.flags.writeable = False
    before = network(view)["x"].copy()
    x += 1.0
    assert np.abs(network(view)["x"] - before).min() > 0.5


def test_sharing_changes_no_score():
    """What is shared is not changed by those who share it."""
    stages, told = [("detector", name, {}) for name in DETECTORS], {}
    profile = profile_of("nchw", stages)

    def scores(chosen):
        engine = Engine(settings_of(chosen, policy={"on_input": "allow"}), profile, SECRET)
        return {finding.stage: finding.scores for finding in whole(engine, "nchw", 3).findings}

    for one in stages:
        told |= scores([one])
    assert len(told) == len(DETECTORS)
    assert scores(stages) == told
