import numpy as np
import pytest
from scipy import optimize

from guard import filters
from guard.purifiers.total_variation import TotalVariation
from guard.settings import ConfigError, build_stage


def steps(shape=(16, 20)):
    """A bright square on grey."""
    x = np.full(shape, 0.3, np.float32)
    x[4:12, 5:15] = 0.7
    return x


def noisy(x, sigma, seed=0):
    return np.clip(x + np.random.default_rng(seed).normal(0, sigma, x.shape), 0, 1).astype(np.float32)


def objective(u, x, weight):
    """Rudin, Osher, Fatemi's, differences to the right and below."""
    across, down = np.zeros(u.shape), np.zeros(u.shape)
    across[:, :-1], down[:-1] = np.diff(u, axis=1), np.diff(u, axis=0)
    return 0.5 * np.sum((u - x) ** 2) + weight * np.sum(np.sqrt(across**2 + down**2))


def test_noise_goes_and_edges_stay():
    clean = steps()
    x = noisy(clean, 8 / 255)
    out = TotalVariation(0.05).purify(x[None, ..., None])[0, ..., 0]
    assert np.abs(out - clean).mean() < 0.5 * np.abs(x - clean).mean()
    assert out[8, 5] - out[8, 4] > 0.3


def test_two_pixels_by_hand():
    """Half of (u - a)^2 + (v - b)^2 plus w |u - v|: both move towards each other by w, or meet."""
    x = np.array([0.2, 0.6], np.float32).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(filters.total_variation(x, 0.1, 500).ravel(), [0.3, 0.5], atol=1e-3)
    np.testing.assert_allclose(filters.total_variation(x, 0.5, 500).ravel(), [0.4, 0.4], atol=1e-3)


def test_it_finds_the_minimum():
    """Against a general solver on the dual: two values a pixel, of length one at most."""
    x, weight = noisy(steps((8, 9)), 0.1).astype(np.float64), 0.1

    def dual(flat):
        across, down = flat.reshape(2, *x.shape).copy()
        across[:, -1] = down[-1] = 0
        scale = np.maximum(1, np.hypot(across, down))
        across, down = across / scale, down / scale
        divergence = across + down
        divergence[:, 1:] -= across[:, :-1]
        divergence[1:] -= down[:-1]
        return x + weight * divergence

    found = optimize.minimize(
        lambda flat: 0.5 * np.sum(dual(flat) ** 2), np.zeros(2 * x.size), options={"maxiter": 500}
    )
    wanted = dual(found.x)
    out = filters.total_variation(x[None, ..., None].astype(np.float32), weight, 2000)[0, ..., 0]
    np.testing.assert_allclose(out, wanted, atol=0.01)
    assert objective(out, x, weight) <= objective(wanted, x, weight) * 1.001


def test_more_iterations_bring_it_nearer():
    x = noisy(steps(), 0.1)
    values = [
        objective(filters.total_variation(x[None, ..., None], 0.1, n)[0, ..., 0].astype(np.float64), x, 0.1)
        for n in (1, 5, 30, 200, 1000)
    ]
    assert values == sorted(values, reverse=True)
    assert values[2] < values[-1] * 1.03


def test_channels_do_not_mix():
    x = noisy(np.stack([steps(), steps()[::-1], np.zeros((16, 20), np.float32)], axis=-1), 0.05)[None]
    out = TotalVariation().purify(x)
    for channel in range(3):
        alone = TotalVariation().purify(x[..., channel, None])[..., 0]
        np.testing.assert_allclose(out[..., channel], alone, atol=1e-6)


def test_a_flat_image_stays():
    x = np.full((2, 5, 7, 3), 0.4, np.float32)
    np.testing.assert_allclose(TotalVariation().purify(x), x, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 6, 3), (2, 6, 1, 2), (0, 4, 4, 1)])
def test_slim_images(shape):
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert TotalVariation().purify(x).shape == shape


@pytest.mark.parametrize(("key", "value"), [("weight", 0), ("weight", 11), ("iterations", 0), ("iterations", 1001)])
def test_options_out_of_range(key, value):
    with pytest.raises(ConfigError, match=rf"options\.{key}"):
        build_stage("purifier", "total_variation", {key: value})


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        TotalVariation().purify(np.zeros((2, 9), np.float32))
