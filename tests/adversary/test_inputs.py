import numpy as np
import pytest

from adversary import inputs
from adversary.campaign import CampaignError, Data


def npz(tmp_path, **arrays):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    return Data(kind="npz", file=path)


def load(data):
    return inputs.load(data, lambda _: None)


def test_mnist(data):
    read = load(Data())
    assert read.x.shape[1:] == (1, 28, 28)
    assert len(read.x) == len(read.y) == len(data.test)
    assert len(read.clean) == len(read.clean_y) == len(data.clean)
    assert read.digest == data.digest


def test_an_npz_file(tmp_path):
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) * 10
    read = load(npz(tmp_path, x=x, y=np.array([1, 0])))
    assert read.x.dtype == np.float32
    assert read.x.max() == np.float32(230 / 255)
    assert read.y.dtype == np.int64
    assert len(read.clean) == 0
    floats = load(npz(tmp_path, x=x / 255.0, y=np.array([1, 0])))
    assert np.allclose(floats.x, read.x)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3))}, "cannot read x and y"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3, int)}, "one whole number a row"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(2)}, "one whole number a row"),
        ({"x": np.zeros((2, 3), int), "y": np.zeros(2, int)}, "must be uint8 or floats"),
        ({"x": np.full((2, 3), 1.5), "y": np.zeros(2, int)}, "must lie in"),
        ({"x": np.full((2, 3), np.nan), "y": np.zeros(2, int)}, "must lie in"),
        ({"x": np.array([{}, {}]), "y": np.zeros(2, int)}, "cannot read x and y"),
    ],
)
def test_other_files_are_refused(tmp_path, arrays, message):
    with pytest.raises(CampaignError, match=message):
        load(npz(tmp_path, **arrays))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(CampaignError, match="cannot read"):
        load(Data(kind="npz", file=tmp_path / "none.npz"))
