import numpy as np
import pytest

from adversary import inputs
from adversary.campaign import CampaignError, Data
from adversary.data import cifar10, mnist


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
    assert np.array_equal(read.pool, read.clean)
    assert len(read.learned) == len(read.learned_y) == len(data.learn)


def test_cifar10(cifar):
    read = load(Data(kind="cifar10"))
    assert (read.x.shape, read.x.dtype) == ((10_000, 3, 32, 32), np.float32)
    assert [len(part) for part in (read.clean, read.pool, read.learned)] == [5000, 20_000, 25_000]
    assert [len(part) for part in (read.clean_y, read.pool_y, read.learned_y)] == [5000, 20_000, 25_000]
    assert read.digest == cifar.digest
    rows = np.array([3, 19_999])
    assert np.array_equal(read.pool[rows], cifar10.unit(cifar.pool.images[rows]))
    assert read.pool_y[rows].tolist() == cifar.pool.labels[rows].tolist()


def test_what_was_learned_may_be_the_first_of_it(data, tmp_path):
    read = load(Data(members=25))
    assert np.array_equal(read.learned[:], mnist.unit(data.learn.images[:25]))
    assert read.learned_y.tolist() == data.learn.labels[:25].tolist()
    x, y = np.zeros((9, 3)), np.arange(9)
    cut = load(npz(tmp_path, x=x, y=y, learned_x=x, learned_y=y).model_copy(update={"members": 4}))
    assert (len(cut.learned), cut.learned_y.tolist()) == (4, [0, 1, 2, 3])


def test_nothing_is_converted_before_it_is_asked_for():
    asked = []
    stored = inputs.Stored(np.arange(6, dtype=np.uint8), lambda images: asked.append(len(images)) or images / 1)
    assert len(stored) == 6
    assert not asked
    assert stored[2:4].tolist() == [2.0, 3.0]
    assert stored[np.array([5])].tolist() == [5.0]
    assert asked == [2, 1]


def test_an_npz_file_with_all_there_is(tmp_path):
    x, y = np.zeros((3, 4), np.uint8), np.arange(3)
    pairs = {"clean": x[:2] + 51, "clean_y": y[:2], "pool": x[:1], "learned_x": x / 1.0, "learned_y": y}
    read = load(npz(tmp_path, x=x, y=y, **pairs))
    assert np.allclose(read.clean, 0.2)
    assert read.clean_y.tolist() == [0, 1]
    assert (read.pool.shape, read.pool_y.tolist()) == ((1, 4), [-1])
    assert (read.learned.shape, read.learned_y.tolist()) == ((3, 4), [0, 1, 2])
    assert load(npz(tmp_path, x=x, y=y, pool=x, pool_y=y)).pool_y.tolist() == [0, 1, 2]


def test_an_npz_file_without(tmp_path):
    read = load(npz(tmp_path, x=np.zeros((3, 4)), y=np.arange(3)))
    assert [len(part) for part in (read.clean, read.pool, read.learned)] == [0, 0, 0]
    assert [len(part) for part in (read.clean_y, read.pool_y, read.learned_y)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"clean": np.zeros((2, 4))}, "clean goes with clean_y"),
        ({"learned_y": np.zeros(2, int)}, "learned_x goes with learned_y"),
        ({"pool_y": np.zeros(2, int)}, "pool goes with pool_y"),
        ({"pool": np.zeros((2, 5))}, r"pool has rows of \(5,\), x of \(4,\)"),
        ({"pool": np.full((2, 4), 2.0)}, "floats in pool must lie in"),
        ({"clean": np.zeros((2, 4)), "clean_y": np.zeros(3, int)}, "clean_y one whole number a row"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(tmp_path, arrays, message):
    with pytest.raises(CampaignError, match=message):
        load(npz(tmp_path, x=np.zeros((3, 4)), y=np.zeros(3, int), **arrays))


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


def test_a_pool_of_other_images_made_to_fit(data, cifar):
    read = load(Data(pool="cifar10"))
    assert (len(read.pool), len(read.pool_y)) == (20_000, 20_000)
    shown = read.pool[np.array([5])]
    assert shown.shape == (1, 1, 28, 28)
    photo = cifar.pool.images[5].astype(float) / 255
    assert shown.mean() == pytest.approx((photo @ [0.299, 0.587, 0.114]).mean(), abs=0.005)
    assert "pool: " in read.source
    assert np.array_equal(read.clean, load(Data()).clean)
    assert load(Data(kind="cifar10", pool="mnist")).pool[:2].shape == (2, 3, 32, 32)


def test_vectors_have_no_pool_of_images(tmp_path, data):
    given = npz(tmp_path, x=np.zeros((2, 3)), y=np.arange(2))
    with pytest.raises(CampaignError, match="not images"):
        load(given.model_copy(update={"pool": "mnist"}))
