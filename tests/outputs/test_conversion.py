"""A protected answer in the output's own meaning and dtype: finite, and its label still its label, on the wire too."""

from dataclasses import replace

import numpy as np
import pytest

from guard.engine import Engine
from guard.profile import from_probabilities, to_probabilities
from guard.settings import Model
from guard.types import Answer, Mode, Query, TensorSpec
from guard.wire.tensors import decode_array, encode_array
from tests.core.helpers import METADATA, profile_of
from tests.outputs.worlds import peaked

DTYPES = {"FP16": np.float16, "BF16": np.float32, "FP32": np.float32, "FP64": np.float64}
STEP = {"FP16": 2**-10, "BF16": 2**-7, "FP32": 2**-22, "FP64": 2**-50}


def on_the_wire(y, datatype):
    return decode_array(datatype, y.shape, encode_array(y, datatype))


def close_calls(classes=10, n=400):
    """Answers in which a class before the top lacks less than any dtype but float64 can tell."""
    rng = np.random.default_rng(0)
    probs = peaked(n, classes)
    top = rng.integers(1, classes, size=n)
    before = (top * rng.random(n)).astype(int)
    each, most = np.arange(n), probs.max(axis=1) * rng.uniform(1.01, 3, n)
    probs[each, top] = most
    probs[each, before] = most * (1 - 10.0 ** rng.uniform(-14, -2, n))
    return probs / probs.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("meaning", ["probabilities", "logits"])
@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_label_survives(meaning, datatype, classes):
    probs = close_calls(classes)
    like = np.zeros((1, classes), DTYPES[datatype])
    sent = on_the_wire(from_probabilities(probs, meaning, like, datatype), datatype)
    np.testing.assert_array_equal(sent.argmax(axis=1), probs.argmax(axis=1))
    alone = np.sort(sent, axis=1)
    assert (alone[:, -1] > alone[:, -2]).all()
    plain = on_the_wire((np.log(probs) if meaning == "logits" else probs).astype(like.dtype), datatype)
    lost = (plain.argmax(axis=1) != probs.argmax(axis=1)).mean()
    assert lost > 0.1 or datatype == "FP64"  # the control: rounding alone loses labels
    back = to_probabilities(sent, meaning)
    assert (
        np.abs(back - probs).max() < 8 * STEP[datatype] + classes * 1e-13 + (meaning == "logits") * 16 * STEP[datatype]
    )


@pytest.mark.parametrize("meaning", ["probabilities", "logits"])
@pytest.mark.parametrize("datatype", DTYPES)
def test_one_hot_and_tiny_probabilities_stay_finite(meaning, datatype):
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1 - 1e-300, 1e-300], [1e-12, 1e-7, 1 - 1e-7 - 1e-12]])
    sent = on_the_wire(from_probabilities(rows, meaning, np.zeros((1, 3), DTYPES[datatype]), datatype), datatype)
    assert np.isfinite(sent).all()
    assert sent.argmax(axis=1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(to_probabilities(sent, meaning), rows, atol=1e-6)


@pytest.mark.parametrize("datatype", DTYPES)
def test_what_the_dtype_can_tell_is_only_rounded(datatype):
    probs = np.array([[0.25, 0.5, 0.25], [0.5, 0.5, 0.0], [0.125, 0.375, 0.5]])
    made = from_probabilities(probs, "probabilities", np.zeros((1, 3), DTYPES[datatype]), datatype)
    np.testing.assert_array_equal(made, probs)  # equals stay equals: the first of them leads
    logits = from_probabilities(probs, "logits", np.zeros((1, 3), DTYPES[datatype]), datatype)
    assert logits[1, 0] == logits[1, 1]


def test_whole_numbers_are_left_to_the_cast():
    assert from_probabilities(np.array([[0.0, 1.0]]), "probabilities", np.zeros((1, 2), np.int32)).tolist() == [[0, 1]]


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("stage", ["reverse_sigmoid", "label_only", "aaa", "top_k"])
def test_the_engine_keeps_the_label_in_the_outputs_own_dtype(datatype, stage):
    rng = np.random.default_rng(0)
    y = on_the_wire((0.2 * rng.normal(size=(200, 3))).astype(DTYPES[datatype]), datatype)
    options = {"gamma": 1.0} if stage == "reverse_sigmoid" else {}  # nearly uniform answers
    profile = replace(
        profile_of({}, meaning="logits"), metadata=replace(METADATA, outputs=(TensorSpec("y", datatype, (-1, 3)),))
    )
    settings = Model(
        name="m",
        profile="p",
        mode=Mode.ENFORCE,
        outputs=[{"stage": stage, "when": "always", "options": options}],
    )
    engine = Engine(settings, profile, b"a secret of sixteen bytes")
    query = engine.admit(Query(rng.random((200, 4), dtype=np.float32), "alice", "m", "1"))
    result = engine.conclude(engine.decide(query, None, ()), Answer(y))
    assert result.findings == ()
    sent = on_the_wire(result.y, datatype)
    assert not np.array_equal(sent, y)
    np.testing.assert_array_equal(sent.argmax(axis=1), y.argmax(axis=1))
