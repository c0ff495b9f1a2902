import numpy as np
import pytest

from adversary import codec


@pytest.mark.parametrize("datatype", sorted(codec.DATATYPES))
def test_every_datatype_survives_raw(datatype):
    x = np.array([[0.0, 1.0], [1.0, 0.0]])
    sent = codec.to_wire(x, datatype)
    assert np.array_equal(codec.from_raw(sent.tobytes(), datatype, (2, 2)).astype(float), x)


def test_whole_numbers_are_rounded():
    assert codec.to_wire(np.array([-1.01, 126.6]), "INT8").tolist() == [-1, 127]


def test_what_travels_is_contiguous():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert codec.to_wire(x.T, "FP32").tobytes() == x.T.copy().tobytes()


def test_what_is_not_spoken():
    with pytest.raises(codec.UnknownDatatype, match="BYTES"):
        codec.dtype_of("BYTES")
    with pytest.raises(codec.UnknownDatatype, match="FP16 cannot travel in typed form"):
        codec.field_of("FP16")


def test_labels_of_scores_and_of_labels():
    assert codec.labels(np.array([[0.1, 0.9], [0.8, 0.2]]), 2).tolist() == [1, 0]
    assert codec.labels(np.array([[7], [3]]), 2).tolist() == [7, 3]
    assert codec.labels(np.array([7, 3]), 2).tolist() == [7, 3]


def test_logits_that_look_like_probabilities_must_be_named():
    y = np.array([[0.25, 0.75]])
    assert codec.probabilities(y, "auto").tolist() == [[0.25, 0.75]]
    assert codec.probabilities(y, "logits")[0, 1] == pytest.approx(1 / (1 + np.exp(-0.5)))
