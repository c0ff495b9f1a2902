import numpy as np
import pytest

from guard.detectors._statistics import statistics_of
from guard.detectors.input_statistics import InputStatistics
from guard.types import Detector
from tests.detectors.fakes import fitted, material, share_above


def photographs(n, seed=0, shape=(16, 16, 3)):
    """Smooth shapes whose colours go together, with a little grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / shape[0]
    waves = rng.uniform(0.3, 1.5, (n, 1, 1, 1)) * np.sin(
        2 * rng.uniform(0.5, 2, (n, 1, 1, 1)) * rows[..., None]
        + 3 * rng.uniform(0.5, 2, (n, 1, 1, 1)) * columns[..., None]
    )
    tint, base = 0.1 * rng.normal(size=(n, 1, 1, shape[2])), rng.uniform(0.3, 0.7, (n, 1, 1, 1))
    grain = rng.normal(size=(n, *shape[:2], 1)) * rng.uniform(0.01, 0.03, (n, 1, 1, 1))
    return np.clip(base + 0.3 * waves * (1 + tint) + grain, 0, 1).astype(np.float32)


CLEAN = photographs(400)


def by_name(x):
    """Of one grey image: the levels, and the roughness of its one plane."""
    energies, together, quiet, levels = np.split(statistics_of(x, {})[0], [4, 6, 9])
    return energies, together, quiet, levels


def test_levels_by_hand():
    x = np.array([0, 0, 0, 0, 1, 1, 0.5, 0.5] * 2, np.float32).reshape(1, 4, 4, 1)
    *_, levels = by_name(x)
    # mean (2 + 1) / 8; variance (2 + .5) / 8 - mean^2 = .171875; half is black, a quarter white
    expected = [0.375, np.log(np.sqrt(0.171875) + 0.01), 0.0, 1.0, np.sqrt(0.5), np.sqrt(0.25)]
    np.testing.assert_allclose(levels, expected)


def test_roughness_of_a_chessboard_by_hand():
    board = (np.indices((6, 6)).sum(axis=0) % 2).astype(np.float32)[None, ..., None]
    energies, together, quiet, _ = by_name(board)
    # neighbours differ by 1, squares of four by 2, the noise kernel (weights sum to 16 in size) gives 8
    np.testing.assert_allclose(energies, np.log([1, 1, 2, 8]), atol=1e-5)
    np.testing.assert_allclose(together, [-1, -1], atol=1e-4)  # every step undoes the one before
    np.testing.assert_allclose(quiet, np.log(2.001))


def test_a_slope_is_smooth():
    x = np.broadcast_to(np.linspace(0, 1, 11, dtype=np.float32), (1, 11, 11))[..., None]
    energies, together, quiet, _ = by_name(x)
    np.testing.assert_allclose(energies, np.log([0.1, 1e-3, 1e-3, 1e-3]), atol=1e-4)
    np.testing.assert_allclose(together, [1, 0], atol=2e-3)
    np.testing.assert_allclose(quiet, np.log(1e-3), atol=1e-3)


def test_colours_are_held_against_each_other():
    grey = np.repeat(photographs(1, shape=(16, 16, 1)), 3, axis=3)
    noisy = grey + np.array([0, 0.02, 0], np.float32) * np.indices((16, 16)).sum(axis=0)[..., None].__mod__(2)
    before, after = statistics_of(grey, {})[0][:12], statistics_of(noisy.astype(np.float32), {})[0][:12]
    gained = (after - before).reshape(4, 3)  # four energies of brightness, red - green, green - blue
    assert (gained[:, 1:] > gained[:, :1] + 1).all()


ODD = {
    "uniform": np.full((50, 16, 16, 3), 0.5, np.float32),
    "black": np.zeros((50, 16, 16, 3), np.float32),
    "random": np.random.default_rng(1).random((50, 16, 16, 3), dtype=np.float32),
    "dense linf of 8/255": photographs(50, 2)
    + np.float32(8 / 255) * np.random.default_rng(3).choice([-1, 1], (50, 16, 16, 3)).astype(np.float32),
}


@pytest.mark.parametrize("name", ODD)
def test_gross_anomalies_stand_out(name):
    stage = fitted(InputStatistics(), CLEAN)
    assert isinstance(stage, Detector)
    fresh = stage.score(photographs(300, seed=4))
    assert share_above(stage.score(np.clip(ODD[name], 0, 1)), fresh, rate=0.01) == 1.0


def test_clean_inputs_and_mild_changes_do_not():
    stage = fitted(InputStatistics(), CLEAN)
    fresh = stage.score(photographs(300, seed=4))
    assert share_above(stage.score(photographs(300, seed=5)), fresh, rate=0.05) < 0.12
    assert share_above(stage.score(photographs(300, seed=5)[:, :, ::-1]), fresh, rate=0.05) < 0.12


def test_vectors_are_served():
    rng = np.random.default_rng(6)
    mix = rng.normal(size=(3, 12)) / 12
    draw = lambda n: np.clip(0.5 + rng.normal(size=(n, 3)) @ mix + 0.01 * rng.normal(size=(n, 12)), 0, 1)
    stage = fitted(InputStatistics(), draw(400))
    clean, odd = draw(300).astype(np.float32), draw(100).astype(np.float32)
    odd[:, 3] = 1
    noisy = draw(100).astype(np.float32) + (0.05 * rng.choice([-1, 1], (100, 12))).astype(np.float32)
    fresh = stage.score(clean)
    assert share_above(stage.score(odd), fresh, rate=0.01) > 0.9
    assert share_above(stage.score(noisy), fresh, rate=0.01) > 0.9
    assert share_above(stage.score(draw(300).astype(np.float32)), fresh, rate=0.05) < 0.12


def test_wide_vectors_keep_no_covariance():
    x = np.random.default_rng(7).random((40, 600), dtype=np.float32)
    arrays = InputStatistics().learn(material(x))
    assert "whitening" not in arrays
    assert arrays["spread"].shape == (600,)


def test_refusals():
    with pytest.raises(ValueError, match="at least 16 clean rows, and there are 15"):
        InputStatistics().learn(material(CLEAN[:15]))
    with pytest.raises(ValueError, match="at least 4 pixels a side, not 3 x 16"):
        fitted(InputStatistics(), CLEAN).score(CLEAN[:1, :3])
    with pytest.raises(ValueError, match="other channels"):
        fitted(InputStatistics(), CLEAN).score(CLEAN[:1, ..., :1])
