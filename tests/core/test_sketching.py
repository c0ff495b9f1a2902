import numpy as np
import pytest

from guard import kernels, sketching
from guard.sketching import DIMENSIONS, Sketcher
from guard.windows import FINGERPRINTS, fingerprint

SECRET = b"sixteen bytes...and more"


def photo(seed=0, shape=(32, 32, 3)):
    """(1, H, W, C), blocks: edges, and something of every size."""
    coarse = np.random.default_rng(seed).random((1, 8, 8, shape[2]))
    tall, wide = -(-shape[0] // 8), -(-shape[1] // 8)
    return np.kron(coarse, np.ones((1, tall, wide, 1)))[:, : shape[0], : shape[1]].astype(np.float32)


def one(x, secret=SECRET):
    return Sketcher(secret)(x)[0]


def families(sketch):
    signed = sketch.hashes >> np.uint64(62) == 1
    return set(sketch.hashes[~signed].tolist()), set(sketch.hashes[signed].tolist())


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (224, 224, 3), (40, 20, 3), (64, 48, 6), (3, 3, 1)])
def test_images(shape):
    x = photo(0, shape)
    made = one(x)
    windows, signs = families(made)
    assert made.hashes.dtype == np.uint64
    assert (made.hashes < 2**63).all()
    assert np.unique(made.hashes).size == made.hashes.size
    assert len(signs) == 8
    assert 1 <= len(windows) <= FINGERPRINTS
    assert made.position.shape == (DIMENSIONS,)
    assert made.motions.shape == (10, DIMENSIONS)
    assert made.position.dtype == made.motions.dtype == np.float32
    assert made.embedding.shape == (0,)
    assert len(made.digest) == 16


@pytest.mark.parametrize("size", [1, 4, 784, 5000])
def test_vectors_have_no_motions(size):
    made = one(np.random.default_rng(0).random((1, size), dtype=np.float32))
    assert made.motions.shape == (0, DIMENSIONS)
    assert made.position.shape == (DIMENSIONS,)
    assert len(families(made)[1]) == 8
    assert np.isfinite(made.position).all()


def test_no_rows():
    assert Sketcher(SECRET)(np.zeros((0, 8, 8, 1), np.float32)) == ()


def test_rows_are_independent_of_their_batch():
    x = np.concatenate([photo(i) for i in range(40)])
    for i, made in enumerate(Sketcher(SECRET)(x)):
        alone = one(x[i : i + 1])
        assert made.digest == alone.digest
        assert made.hashes.tolist() == alone.hashes.tolist()
        np.testing.assert_allclose(made.position, alone.position, atol=1e-4)
        np.testing.assert_allclose(made.motions, alone.motions, atol=1e-4)


def test_rows_may_lie_in_any_order():
    x = np.random.default_rng(0).random((3, 8, 9, 3), dtype=np.float32)
    mirrored, planes = x[:, :, ::-1], np.ascontiguousarray(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    for odd in (mirrored, planes, x[::2], x.astype(np.float64)):
        for made, plain in zip(Sketcher(SECRET)(odd), Sketcher(SECRET)(odd.astype(np.float32, order="C")), strict=True):
            assert made.digest == plain.digest
            assert made.hashes.tolist() == plain.hashes.tolist()
            np.testing.assert_array_equal(made.motions, plain.motions)


def test_all_is_keyed():
    a, b = one(photo()), one(photo(), b"another secret of some length")
    assert a.digest != b.digest
    assert not set(a.hashes.tolist()) & set(b.hashes.tolist())
    assert np.linalg.norm(a.position - b.position) > 1


def test_the_slightest_change_is_another_row():
    x = photo()
    y = x.copy()
    y[0, 5, 5, 1] += 1e-4
    assert one(x).digest != one(y).digest
    assert one(-0.0 * x).digest == one(0.0 * x).digest


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_distances_between_positions_are_those_between_images(shape):
    x, y = photo(0, shape), photo(1, shape)
    wanted = np.linalg.norm((x - x.mean()) - (y - y.mean()))
    ratios = [
        np.linalg.norm(one(x, bytes([i]) * 16).position - one(y, bytes([i]) * 16).position) / wanted for i in range(40)
    ]
    assert abs(np.mean(ratios) - 1) < 0.05
    assert np.std(ratios) < 0.2


@pytest.mark.parametrize("size", [784, 5000])
def test_distances_between_vectors(size):
    x, y = np.random.default_rng(0).random((2, 1, size), dtype=np.float32)
    ratios = [
        np.linalg.norm(one(x, bytes([i]) * 16).position - one(y, bytes([i]) * 16).position) / np.linalg.norm(x - y)
        for i in range(40)
    ]
    assert abs(np.mean(ratios) - 1) < 0.05


def test_brightness_alone_is_no_difference():
    x = 0.2 + 0.5 * photo()
    np.testing.assert_allclose(one(x).position, one(x + np.float32(0.1)).position, atol=1e-3)


def test_motions_are_how_positions_move():
    """To the first order: a smooth image that moves by a quarter of a pixel; the derivative is of two pixels."""
    v, u = np.mgrid[0:32, 0:32] / 5.0
    at = lambda dx, dy: (0.5 + 0.3 * np.sin(u + dx / 5.0) * np.cos(v + dy / 5.0))[None, :, :, None].astype(np.float32)
    here = one(at(0, 0))
    for motion, there in ((here.motions[0], one(at(0.25, 0))), (here.motions[1], one(at(0, 0.25)))):
        way = there.position - here.position
        assert np.dot(way, motion) / np.linalg.norm(way) / np.linalg.norm(motion) > 0.95
        assert 0.8 < np.linalg.norm(motion) * 0.125 / np.linalg.norm(way) < 1.25


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_uniform_image_lies_at_the_origin_and_nothing_moves_it(level, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(kernels, "compiled", None)
    made = one(np.full((1, 9, 8, 3), level, np.float32))
    assert not made.position.any()
    assert not made.motions.any()
    assert families(made)[1] == families(one(np.full((1, 9, 8, 3), 0.5, np.float32)))[1]


def test_contrast_is_the_position_itself():
    made = one(photo())
    np.testing.assert_array_equal(made.motions[-sketching.TONES], made.position)


def test_noise_everywhere_is_found_by_signs_and_other_images_are_not():
    rng, found, strange = np.random.default_rng(0), 0, 0
    for i in range(60):
        x = photo(i)
        noise = rng.normal(0, 1, x.shape)
        noise *= 0.2 * np.linalg.norm(x - x.mean()) / np.linalg.norm(noise)
        made = families(one(x))[1]
        found += bool(made & families(one(np.clip(x + noise, 0, 1).astype(np.float32)))[1])
        strange += bool(made & families(one(photo(i + 1000)))[1])
    assert found >= 57
    assert strange <= 2


def test_a_patch_shares_windows():
    x = photo()
    patched = x.copy()
    patched[:, 4:10, 4:10] = 1 - patched[:, 4:10, 4:10]
    assert families(one(x))[0] & families(one(patched))[0]


def test_windows_are_alike_in_float32_and_float64():
    x = photo()
    assert fingerprint(x[0], SECRET).tolist() == fingerprint(x[0].astype(np.float64), SECRET).tolist()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.0, -2.0])
def test_values_that_no_image_has(bad):
    for x in (photo(), np.random.default_rng(0).random((1, 9), dtype=np.float32)):
        x[0, 0] = bad
        made = one(x)
        assert np.isfinite(made.position).all()
        assert np.isfinite(made.motions).all()


def test_embeddings_are_the_auxiliarys():
    class Auxiliary:
        def __call__(self, x):
            return {"embedding": x.mean(axis=(1, 2)), "logits": x[:, 0, 0]}

    x = np.concatenate([photo(0), photo(1)])
    for row, made in zip(x, Sketcher(SECRET, Auxiliary())(x), strict=True):
        np.testing.assert_allclose(made.embedding, row.mean(axis=(0, 1)), rtol=1e-5)
    with pytest.raises(ValueError, match="no output named embedding"):
        Sketcher(SECRET, lambda x: {"logits": x})(x)


def test_positions_alone_are_those_of_the_sketches():
    x = np.random.default_rng(3).random((40, 8, 8, 3), dtype=np.float32)
    sketcher = Sketcher(b"a secret of sixteen or more")
    np.testing.assert_array_equal(sketcher.positions(x), np.stack([one.position for one in sketcher(x)]))


@pytest.mark.parametrize("shape", [(1, 128, 1), (1, 64, 3), (16, 16, 1)])
def test_one_value_does_not_move_all_signs(shape):
    """The first least of all: nothing is measured from it."""
    kept = []
    for i in range(40):
        x = photo(i, (8, *shape[1:]))[:, : shape[0]]
        y = x.copy()
        y[0, 0, 0] = 1.0 - y[0, 0, 0]
        kept.append(bool(families(one(x))[1] & families(one(y))[1]))
    assert np.mean(kept) >= 0.8
