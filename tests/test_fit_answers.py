import numpy as np
import pytest

from guard.fit_answers import read_output
from guard.fit_clean import FitError
from guard.fit_inputs import Choices

PROBS = np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32)
LOGITS = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
LABELS = np.arange(20) % 3


@pytest.mark.parametrize(
    ("y", "meaning", "classes"),
    [
        (PROBS, "probabilities", 5),
        (PROBS.astype(np.float16), "probabilities", 5),
        (LOGITS, "logits", 5),
        (PROBS * 2, "logits", 5),
        (np.log(PROBS), "logits", 5),
        (LABELS, "labels", 3),
        (LABELS[:, None].astype(np.int32), "labels", 3),
        (np.array([b"cat", b"dog"] * 10, dtype=object), "labels", 2),
    ],
)
def test_meanings(y, meaning, classes):
    assert read_output({"y": y}, Choices()) == ("y", meaning, classes)


def test_rows_that_sum_to_one_by_chance_of_sign_are_logits():
    y = LOGITS - LOGITS.mean(axis=1, keepdims=True) + 0.2
    np.testing.assert_allclose(y.sum(axis=1), 1, atol=1e-5)
    assert read_output({"y": y}, Choices())[1] == "logits"


def test_told():
    assert read_output({"y": PROBS}, Choices(meaning="logits"))[1] == "logits"
    assert read_output({"y": PROBS[:, :1]}, Choices(meaning="labels"))[1:] == ("labels", 20)


def test_which_output():
    both = {"labels": LABELS, "scores": LOGITS}
    assert read_output(both, Choices())[0] == "scores"
    assert read_output(both, Choices(output="labels"))[:2] == ("labels", "labels")
    for answer, choices in (
        (both | {"features": PROBS}, Choices()),
        ({"a": LABELS, "b": LABELS}, Choices()),
        (both, Choices(output="other")),
        ({}, Choices()),
    ):
        with pytest.raises(FitError, match="Give --output; the model has"):
            read_output(answer, choices)


@pytest.mark.parametrize("y", [LOGITS[:, :1], LOGITS.ravel(), LOGITS.reshape(4, 5, 5)])
def test_no_classes(y):
    with pytest.raises(FitError, match="no classes"):
        read_output({"y": y}, Choices())


def test_what_cannot_be_what_it_is_told_to_be():
    for y in (LOGITS.ravel(), np.full((3, 2), np.nan), np.array([[b"a", b"b"]], dtype=object)):
        with pytest.raises(FitError, match="logits are finite numbers, rows by classes"):
            read_output({"y": y}, Choices(meaning="logits"))
