import numpy as np
import pytest

from guard.outputs.aaa import AAA
from guard.settings import ConfigError, build_stage
from tests.outputs.attackers import Model, margins, square
from tests.outputs.worlds import every, leads, peaked, softmax


@pytest.mark.parametrize(
    ("stage", "margin", "wanted"),
    [
        (AAA(period=4.0), 0.0, 4.0),
        (AAA(period=4.0), 1.0, 3.0),
        (AAA(period=4.0), 3.0, 1.0),
        (AAA(period=4.0), 5.0, 7.0),
        (AAA(period=4.0, strength=0.5), 1.0, 2.5),
        (AAA("sine", period=6.0), 1.5, 1.5 + 4.2),  # the authors' target at the quarter: m + 0.7 of a period
        (AAA("sine", period=6.0), 4.5, 4.5 - 4.2),
        (AAA("sine", period=6.0), 3.0, 3.0),
    ],
)
def test_margins_by_hand(stage, margin, wanted):
    logits = np.array([[margin, 0.0, -0.5, -2.0]])
    out = stage.protect(softmax(logits), every(1))
    assert margins(out, [0])[0] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("form", ["linear", "sine"])
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_the_margin_is_hit_and_the_label_kept(form, classes):
    probs = peaked(300, classes, most=20.0)
    stage, top = AAA(form), probs.argmax(axis=1)
    out = stage.protect(probs, every(300))
    assert leads(out, probs).all()
    within = margins(probs, top) < 25  # beyond, float64 has too few digits of the second
    np.testing.assert_allclose(margins(out, top)[within], stage.margin(margins(probs, top))[within], atol=1e-5)


def test_small_steps_look_like_steps_the_other_way():
    near = np.stack([np.linspace(2.1, 3.9, 30), *np.zeros((2, 30))], axis=1)
    shown = margins(AAA(period=2.0).protect(softmax(near), every(30)), np.zeros(30, int))
    assert (np.diff(shown) < 0).all()
    assert (np.diff(margins(softmax(near), np.zeros(30, int))) > 0).all()  # the control


@pytest.mark.parametrize("form", ["linear", "sine"])
def test_the_order_of_the_others_and_what_confidence_allows(form):
    probs = peaked(300, 10)
    out = AAA(form).protect(probs, every(300))
    np.testing.assert_array_equal(np.argsort(-out, axis=1), np.argsort(-probs, axis=1))
    moved = np.abs(out.max(axis=1) - probs.max(axis=1))
    alone = np.abs(top_moved_only(probs, AAA(form)).max(axis=1) - probs.max(axis=1))
    assert moved.mean() < 0.5 * alone.mean()  # than by moving the top alone


def top_moved_only(probs, stage):
    logits, top = np.log(probs), probs.argmax(axis=1)
    margin = margins(probs, top)
    logits[np.arange(len(logits)), top] += stage.margin(margin) - margin
    return softmax(logits)


def calibration_error(probs, truth, bins=15):
    """Expected calibration error (Naeini et al. 2015), bins of equal width."""
    sure, right = probs.max(axis=1), probs.argmax(axis=1) == truth
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return sum(
        (place == i).mean() * abs(sure[place == i].mean() - right[place == i].mean()) for i in np.unique(place)
    )  # fmt: skip


def test_calibration():
    """With the temperature that fits an oversure model the error falls; a calibrated one loses 0.03 at most."""
    fair = peaked(8000, 10, most=10.0)
    truth = (fair.cumsum(axis=1) > np.random.default_rng(1).random((8000, 1))).argmax(axis=1)
    oversure, all_ = softmax(2 * np.log(fair)), every(8000)
    assert calibration_error(fair, truth) < 0.015
    assert calibration_error(oversure, truth) > 0.08
    assert calibration_error(AAA(temperature=2.0).protect(oversure, all_), truth) < 0.04
    assert calibration_error(AAA().protect(oversure, all_), truth) < calibration_error(oversure, truth) + 0.01
    assert calibration_error(AAA().protect(fair, all_), truth) < calibration_error(fair, truth) + 0.03
    assert calibration_error(AAA(period=8.0).protect(fair, all_), truth) > 0.1  # what a long period costs


@pytest.mark.parametrize("form", ["linear", "sine"])
def test_an_attacker_who_follows_the_margin_is_misled(form):
    model = Model()
    x = model.inputs(60)
    labels, stage = model(x).argmax(axis=1), AAA(form)

    def success(ask):
        return (model(square(ask, x, labels, 0.12, 300)).argmax(axis=1) != labels).mean()

    assert success(model) > 0.7  # the control
    assert success(lambda z: stage.protect(model(z), every(len(z)))) < 0.15


def test_an_attacker_who_knows_the_bend_is_not():
    model, stage = Model(), AAA()
    x = model.inputs(60)
    labels = model(x).argmax(axis=1)

    def undone(z):
        out = stage.protect(model(z), every(len(z)))
        return top_moved_only(out, stage)  # linear bends are their own inverse

    assert (model(square(undone, x, labels, 0.12, 300)).argmax(axis=1) != labels).mean() > 0.7


def test_options_out_of_range():
    for option in ({"form": "saw"}, {"period": 0}, {"strength": 1.5}, {"temperature": 0}):
        with pytest.raises(ConfigError, match=next(iter(option))):
            build_stage("output", "aaa", option)
